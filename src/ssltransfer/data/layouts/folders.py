"""Folders of pictures: any nesting, unlabelled or labelled by the first folder level."""

from __future__ import annotations

import os
from pathlib import Path

from ssltransfer.config.formats import Folder, ImageFolder
from ssltransfer.data.layouts import Found, LayoutError
from ssltransfer.data.pictures import EXTENSIONS


def find(dataset: Folder | ImageFolder, *, workers: int = 1) -> Found:
    """All pictures below root (and split), sorted by path; the class is the first folder of the path.

    Raises:
        LayoutError: the folder is missing, a class folder is empty, or pictures lie beside the class folders.
    """
    root = Path(dataset.root)
    labelled = isinstance(dataset, ImageFolder) or dataset.labels == "folder"
    if isinstance(dataset, ImageFolder) and dataset.split:
        root = root / dataset.split
    return find_classes(root) if labelled else find_pictures(root)


def find_pictures(root: Path) -> Found:
    """Every picture below `root`, unlabelled."""
    if not root.is_dir():
        raise LayoutError(f"{root}: there is no such folder; check root and split of this dataset.")
    paths: list[str] = []
    left_out: dict[str, str] = {}
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = (Path(folder) / name).relative_to(root).as_posix()
            if name.startswith("."):
                left_out[path] = "hidden file"
            elif Path(name).suffix.lower() not in EXTENSIONS:
                left_out[path] = "not a picture's file name"
            else:
                paths.append(path)
    return Found(root, sorted(paths), left_out=left_out)


def find_classes(root: Path) -> Found:
    """Every picture below a class folder; classes are the sorted names of root's folders, as torchvision's."""
    found = find_pictures(root)
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise LayoutError(f"{root}: no class folders here; give labels: none (format: folder), or another root.")
    inside = [path for path in found.paths if "/" in path]
    left_out = found.left_out | {path: "beside the class folders" for path in found.paths if "/" not in path}
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[path.split("/", 1)[0]] for path in inside]
    empty = sorted(set(classes) - {classes[label] for label in labels})
    if empty:
        raise LayoutError(f"{root}: class folder {empty[0]!r} holds no pictures; fill it or remove it.")
    return Found(root, inside, labels, classes, left_out=left_out)
