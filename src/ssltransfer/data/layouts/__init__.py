"""Published folder layouts -> the pictures of a data set and their labels. A file a family of formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from ssltransfer.config.formats import Dataset


class LayoutError(RuntimeError):
    """The folder is missing or not laid out as the format says; one clear sentence."""


@dataclass(frozen=True)
class Found:
    """Pictures that a layout names, before any of them was opened.

    Attributes:
        root: folder that `paths` start from.
        paths: relative path of each picture, in the set's own fixed order.
        labels: class of each picture, or None where the set has no single label a picture.
        classes: names of the classes.
        presence: int8 (N, C): 1 present, 0 difficult, -1 absent, for sets with several labels a picture.
        left_out: path -> reason, for files that are no candidates.
        notes: remarks to print, such as a size that differs from the published one.
    """

    root: Path
    paths: list[str]
    labels: list[int] | None = None
    classes: list[str] = field(default_factory=list)
    presence: np.ndarray | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


_MODULES = {
    "folder": "folders",
    "imagefolder": "folders",
    "imagenet": "imagenet",
    "cifar10": "torchvision_sets",
    "cifar100": "torchvision_sets",
    "stl10": "torchvision_sets",
    "flowers102": "torchvision_sets",
    "places365": "torchvision_sets",
    "voc": "voc",
    "world": "embedded",
}


def find(dataset: Dataset, *, workers: int = 1) -> Found:
    """The pictures of a data set, fetched or drawn first where the format does that.

    Raises:
        LayoutError: the folder is missing, empty, or laid out otherwise.
    """
    module = import_module(f"ssltransfer.data.layouts.{_MODULES[dataset.format]}")
    finder: Callable[..., Found] = module.find
    found = finder(dataset, workers=workers)
    if not found.paths:
        raise LayoutError(f"{found.root}: no pictures here; check root and split of this dataset.")
    return found
