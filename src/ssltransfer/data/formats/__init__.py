"""Published folder layouts -> the images of a data set and their labels. A file a family of formats."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ssltransfer.config.formats import Dataset
from ssltransfer.errors import UserError
from ssltransfer.registry import Registry


class LayoutError(UserError):
    """The folder is missing or not laid out as the format says; one clear sentence."""


@dataclass(frozen=True)
class DatasetListing:
    """Images that a layout names, before any of them was opened.

    Attributes:
        root: folder that `paths` start from.
        paths: relative path of each image, in the set's own fixed order.
        labels: class of each image, or None where the set has no single label a image.
        classes: names of the classes.
        multi_label: int8 (N, C): 1 present, 0 difficult, -1 absent, for sets with several labels a image.
        skipped: path -> reason, for files that are no candidates.
        targets: relative path of what each image comes with, where the dataset was asked for it.
        notes: remarks to print, such as a size that differs from the published one.
    """

    root: Path
    paths: list[str]
    labels: list[int] | None = None
    classes: list[str] = field(default_factory=list)
    multi_label: np.ndarray | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    targets: list[str] | None = None


FORMATS: Registry[Callable[..., DatasetListing]] = Registry(__name__)
"""Options class of a format -> `find(dataset, *, workers)`."""


def find(dataset: Dataset, *, workers: int = 1) -> DatasetListing:
    """The images of a data set, fetched or drawn first where the format does that.

    Args:
        dataset: what to find; a root that begins with ~ lies in the user's home.
        workers: threads or processes that may help where images are written first.

    Raises:
        LayoutError: the folder is missing, empty, or laid out otherwise.
        ArtifactError: the disk is full where images are fetched or written.
    """
    dataset = dataset.model_copy(update={"root": str(Path(dataset.root).expanduser())})
    found = FORMATS[type(dataset)](dataset, workers=workers)
    if not found.paths:
        raise LayoutError(f"{found.root}: no images here; check root and split of this dataset.")
    if dataset.published not in (None, len(found.paths)):
        found.notes.append(
            f"{found.root}: {len(found.paths)} images are listed, the published number is {dataset.published}."
        )
    return found


def folder_of(root: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, sorted by name.

    Raises:
        LayoutError: it is not there, or may not be opened: what it hides cannot be listed as left out.
    """
    try:
        with os.scandir(root) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        raise LayoutError(f"{root}: there is no such folder; check root and split of this dataset.") from None
    except OSError as error:
        raise LayoutError(f"{root}: this folder cannot be opened ({error.strerror}); mend it or remove it.") from None
