"""Options of the sets that torchvision downloads."""

from typing import Literal

from ssltransfer.config.formats.base import Dataset, LabelType


class Torchvision(Dataset):
    """Options of the sets that torchvision downloads into `root` and verifies."""

    root: str = "data/torchvision"
    download: bool = True

    @property
    def creates_root(self) -> bool:
        """Only with `download`."""
        return self.download


class Cifar10(Torchvision):
    """CIFAR-10, downloaded by torchvision, kept as PNG files."""

    format: Literal["cifar10"] = "cifar10"
    reference = "Krizhevsky 2009; torchvision.datasets.CIFAR10"
    published_sizes = {"train": 50_000, "test": 10_000}
    split: Literal["train", "test"]


class Cifar100(Torchvision):
    """CIFAR-100, downloaded by torchvision, kept as PNG files."""

    format: Literal["cifar100"] = "cifar100"
    reference = "Krizhevsky 2009; torchvision.datasets.CIFAR100"
    published_sizes = {"train": 50_000, "test": 10_000}
    split: Literal["train", "test"]


class Stl10(Torchvision):
    """STL-10 with its unlabeled part, downloaded by torchvision, kept as PNG files."""

    format: Literal["stl10"] = "stl10"
    reference = "Coates et al. 2011; torchvision.datasets.STL10"
    published_sizes = {"train": 5_000, "test": 8_000, "unlabeled": 100_000}
    split: Literal["train", "test", "unlabeled"]

    @property
    def label_type(self) -> LabelType:
        """The part called unlabeled has no labels."""
        return "none" if self.split == "unlabeled" else "single"
