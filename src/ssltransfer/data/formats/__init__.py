"""Data set formats: list the images and labels of a published folder layout. One file per family."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssltransfer.artifacts.archives import Member, Members
from ssltransfer.config.formats import Dataset
from ssltransfer.errors import UserError
from ssltransfer.registry import Registry


class LayoutError(UserError):
    """The folder is missing or does not have the layout of its format."""


@dataclass(frozen=True)
class DatasetListing:
    """Image paths and labels of a data set, before any image is opened.

    Attributes:
        root: folder that `paths` start from, or an archive, or a folder in one.
        paths: relative path of each image, in a fixed order.
        labels: class of each image, or None if the set does not have one label per image.
        classes: names of the classes.
        multi_label: int8 (N, C): 1 present, 0 difficult, -1 absent, for sets with several labels per image.
        skipped: path -> reason, for files that are not images.
        targets: relative path of each image's ground truth, if the dataset has `targets`.
        notes: warnings to print, such as a size that differs from the published one.
        members: positions of the images in archives, if they are not files of their own.
    """

    root: Path
    paths: list[str]
    labels: list[int] | None = None
    classes: list[str] = field(default_factory=list)
    multi_label: np.ndarray | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    targets: list[str] | None = None
    members: Members | None = None

    def source(self, position: int) -> Path | Member:
        """The file of an image, or its place in an archive."""
        path = self.root / self.paths[position]
        return path if self.members is None else self.members.member(position, path)

    def subset(self, positions: list[int]) -> DatasetListing:
        """The images at these positions."""
        if len(positions) == len(self.paths):
            return self
        return replace(
            self,
            paths=[self.paths[position] for position in positions],
            labels=None if self.labels is None else [self.labels[position] for position in positions],
            multi_label=None if self.multi_label is None else self.multi_label[positions],
            targets=None if self.targets is None else [self.targets[position] for position in positions],
            members=None if self.members is None else self.members.subset(positions),
        )


FORMATS: Registry[Callable[..., DatasetListing]] = Registry(__name__)
"""Options class of a format -> `find(dataset, *, workers)`."""


def find(dataset: Dataset, *, workers: int = 1) -> DatasetListing:
    """List the images of a data set; some formats download or generate them first, with `workers` threads or processes.

    A ~ in the root is the home directory.

    Raises:
        LayoutError: the folder is missing, empty or has another layout, a list is missing or damaged, or the set cannot
            be downloaded.
        ArtifactError: the disk is full where images are fetched or written.
    """
    dataset = dataset.model_copy(update={"root": str(Path(dataset.root).expanduser())})
    found = FORMATS[type(dataset)](dataset, workers=workers)
    if not found.paths:
        raise LayoutError(
            f"{found.root}: no images found{other_files(found.root)}; check root and split of this dataset."
        )
    if dataset.published not in (None, len(found.paths)):
        found.notes.append(
            f"{found.root}: found {len(found.paths)} images; the published number is {dataset.published}."
        )
    return found


def other_files(root: Path) -> str:
    """ ", but 3 files ending in .heic ..." for a folder without images; empty for an empty folder."""
    suffixes = Counter(path.suffix.lower() for path in root.rglob("*") if path.suffix and path.is_file())
    if not suffixes:
        return ""
    suffix, count = suffixes.most_common(1)[0]
    return f", but {count} files ending in {suffix}, which is not a suffix of images; convert them to JPEG or PNG"


def folder_of(root: Path) -> list[os.DirEntry[str]]:
    """List the entries of a folder, sorted by name.

    Raises:
        LayoutError: it is missing or cannot be opened.
    """
    try:
        with os.scandir(root) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        raise LayoutError(f"{root}: no such folder; check root and split of this dataset.") from None
    except OSError as error:
        raise LayoutError(
            f"{root}: this folder cannot be opened ({error.strerror}); fix its permissions or remove it."
        ) from None


def is_folder(entry: os.DirEntry[str]) -> bool | None:
    """Whether an entry is a folder; None for a link in a circle or into a folder that cannot be opened."""
    try:
        return entry.is_dir()
    except OSError:  # all but a missing target
        return None


def read_list(path: Path) -> str:
    """Read a published or hand-made list, UTF-8 with or without a byte-order mark.

    Raises:
        LayoutError: it is not UTF-8.
        OSError: it cannot be opened.
    """
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise LayoutError(f"{path}: not UTF-8 text; save this list as UTF-8.") from None


def read_mat(content: bytes, where: str) -> dict[str, Any]:
    """Read the variables of a MATLAB file, without singleton dimensions.

    Raises:
        LayoutError: it is not a MATLAB file, or damaged.
    """
    from scipy.io import loadmat

    try:
        variables: dict[str, Any] = loadmat(io.BytesIO(content), squeeze_me=True)
    except MemoryError:
        raise
    except Exception as error:  # scipy raises arbitrary exceptions on damaged bytes
        raise LayoutError(f"{where}: cannot be read ({error}); remove it and download it again.") from None
    return variables
