"""Options of Places365 and Places205."""

from typing import Literal

from ssltransfer.config.formats.base import Dataset
from ssltransfer.config.formats.torchvision_sets import Torchvision


class Places365(Torchvision):
    """Places365-Standard in 256 px files, downloaded by torchvision."""

    format: Literal["places365"] = "places365"
    reference = "Zhou et al. 2017; torchvision.datasets.Places365"
    published_sizes = {"train": 1_803_460, "val": 36_500}
    split: Literal["train", "val"]


class Places205(Dataset):
    """Places205: images256/ and the lists train_places205.csv, val_places205.csv ("path label")."""

    format: Literal["places205"] = "places205"
    reference = "Zhou et al. 2014"
    published_sizes = {"train": 2_448_873, "val": 20_500}
    split: Literal["train", "val"]
