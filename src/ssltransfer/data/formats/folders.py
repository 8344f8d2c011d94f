"""Folders of images: any nesting, unlabeled or labeled by the first folder level."""

import os
from collections.abc import Iterator
from pathlib import Path

from ssltransfer.config.formats import Folder, ImageFolder
from ssltransfer.data.formats import FORMATS, DatasetListing, LayoutError, folder_of, is_folder, other_files
from ssltransfer.data.image_io import EXTENSIONS

NO_IMAGE = "not an image's file name"
_SPLITS = frozenset({"train", "val", "valid", "validation", "test", "train2017", "val2017"})


@FORMATS.register(Folder, ImageFolder)
def find(dataset: Folder | ImageFolder, *, workers: int = 1) -> DatasetListing:
    """List all images below root (and split), sorted by path; the class is the first folder of the path."""
    root = Path(dataset.root)
    if isinstance(dataset, Folder):
        return find_classes(root) if dataset.labels == "folder" else find_images(root)
    if dataset.split:
        if root.is_dir() and not (root / dataset.split).is_dir():
            there = ", ".join(class_names(root)[:10]) or "no folders"
            raise LayoutError(f"{root}: no split {dataset.split!r}; available: {there}.")
        return find_classes(root / dataset.split)
    found = find_classes(root)
    if _SPLITS.issuperset(found.classes):
        raise LayoutError(
            f"{root}: its folders {', '.join(found.classes)} are splits rather than classes; "
            f"set split: {found.classes[0]}."
        )
    return found


def find_images(root: Path) -> DatasetListing:
    """List every image below `root`, unlabeled; follows links, but not in a cycle.

    Raises:
        LayoutError: a folder is missing or cannot be opened.
    """
    paths: list[str] = []
    skipped: dict[str, str] = {}
    for path, reason in _walk(root, "", frozenset()):
        if (readable := _as_text(path)) != path:
            skipped[readable] = "the file name is not valid UTF-8; rename it"
        elif reason:
            skipped[path] = reason
        else:
            paths.append(path)
    return DatasetListing(root, sorted(paths), skipped=skipped)


def find_classes(root: Path) -> DatasetListing:
    """List every image below a class folder; classes are the sorted folder names, as in torchvision.

    Raises:
        LayoutError: a folder is missing, there are no class folders, or one contains no images.
    """
    found = find_images(root)
    classes = class_names(root)
    if not classes:
        raise LayoutError(f"{root}: no class folders found; set labels: none (format: folder), or another root.")
    inside = [path for path in found.paths if "/" in path]
    skipped = found.skipped | {path: "outside the class folders" for path in found.paths if "/" not in path}
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[path.split("/", 1)[0]] for path in inside]
    empty = sorted(set(range(len(classes))) - set(labels))
    if empty:
        raise LayoutError(
            f"{root}: class folder {_as_text(classes[empty[0]])!r} has no images"
            f"{other_files(root / classes[empty[0]])}; fill or remove it."
        )
    return DatasetListing(root, inside, labels, classes, skipped=skipped)


def class_names(root: Path) -> list[str]:
    """Sorted names of the visible folders in `root`."""
    return [entry.name for entry in folder_of(root) if is_folder(entry) and not entry.name.startswith(".")]


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, str | None]]:
    """(relative path, reason to skip it or None) of everything below a folder.

    `prefix` is its path from the root, with a slash at the end; `above` are the identities of its parent folders.
    """
    entries = folder_of(folder)
    above |= {_identity(folder.stat())}
    for entry in entries:
        path = prefix + entry.name
        kind = is_folder(entry)
        if kind is None:
            yield path, "a link that leads nowhere, or into a folder that cannot be opened"
        elif kind:
            if entry.name.startswith("."):
                yield path + "/", "hidden folder"
            elif entry.is_symlink() and _identity(entry.stat()) in above:
                yield path + "/", "a link back to a folder above it"
            else:
                yield from _walk(Path(entry.path), path + "/", above)
        elif entry.name.startswith("."):
            yield path, "hidden file"
        elif os.path.splitext(entry.name)[1].lower() not in EXTENSIONS:  # noqa: PTH122 - Path objects are too slow
            yield path, NO_IMAGE
        else:
            yield path, None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _as_text(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
