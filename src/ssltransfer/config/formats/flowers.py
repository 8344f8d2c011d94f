"""Options of Oxford Flowers-102."""

from typing import Literal

from ssltransfer.config.formats.torchvision_sets import Torchvision


class Flowers102(Torchvision):
    """Oxford Flowers-102, downloaded by torchvision."""

    format: Literal["flowers102"] = "flowers102"
    reference = "Nilsback & Zisserman 2008; torchvision.datasets.Flowers102"
    published_sizes = {"train": 1_020, "val": 1_020, "test": 6_149}
    split: Literal["train", "val", "test"]
