"""Options of ImageNet 2012."""

from typing import Literal

from ssltransfer.config.formats.base import Dataset


class ImageNet(Dataset):
    """ImageNet 2012: train/WNID/, val/WNID/, or a flat val/ with the devkit's ground truth."""

    format: Literal["imagenet"] = "imagenet"
    reference = "Russakovsky et al. 2015; torchvision.datasets.ImageNet"
    published_sizes = {"train": 1_281_167, "val": 50_000}
    split: Literal["train", "val"]
