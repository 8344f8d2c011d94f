"""Folders of images: any nesting, unlabeled or labeled by the first folder level."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ssltransfer.artifacts.archives import archive_of
from ssltransfer.config.base import suggest
from ssltransfer.config.formats import Folder, ImageFolder
from ssltransfer.data.archives import LINK, MACOS_METADATA, ArchiveError, Listing, list_archive, members_of
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
        if _is_folder(root) and not _is_folder(root / dataset.split):
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
    """List every image below `root`, unlabeled; follows links, but not in a cycle. `root` may be inside an archive.

    Raises:
        LayoutError: a folder is missing or cannot be opened, or an archive cannot be read in place.
    """
    inside = _inside(root)
    paths: list[str] = []
    skipped: dict[str, str] = {}
    for path, reason in _walk(root, "", frozenset()) if inside is None else _walk_archive(*inside):
        if (readable := _as_text(path)) != path:
            skipped[readable] = "the file name is not valid UTF-8; rename it"
        elif reason:
            skipped[path] = reason
        else:
            paths.append(path)
    paths.sort()
    members = None
    if inside is not None:
        listing, prefix = inside
        members = members_of([(listing, prefix + path) for path in paths])
    return DatasetListing(root, paths, skipped=skipped, members=members)


def find_classes(root: Path) -> DatasetListing:
    """List every image below a class folder; classes are the sorted folder names, as in torchvision.

    Raises:
        LayoutError: a folder is missing, there are no class folders, or one contains no images.
    """
    found = find_images(root)
    classes = class_names(root)
    if not classes:
        raise LayoutError(f"{root}: no class folders found; set labels: none (format: folder), or another root.")
    skipped = found.skipped | {path: "outside the class folders" for path in found.paths if "/" not in path}
    found = found.subset([position for position, path in enumerate(found.paths) if "/" in path])
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[path.split("/", 1)[0]] for path in found.paths]
    empty = sorted(set(range(len(classes))) - set(labels))
    if empty:
        raise LayoutError(
            f"{root}: class folder {_as_text(classes[empty[0]])!r} has no images"
            f"{other_files(root / classes[empty[0]])}; fill or remove it."
        )
    notes = []
    if found.members is not None and len(classes) == 1:
        notes.append(
            f"{root}: the only class is {classes[0]!r}; if its folders are the classes, add /{classes[0]} to root."
        )
    return replace(found, labels=labels, classes=classes, skipped=skipped, notes=notes)


def class_names(root: Path) -> list[str]:
    """Sorted names of the visible folders in `root`."""
    inside = _inside(root)
    if inside is None:
        names = {entry.name for entry in folder_of(root) if is_folder(entry)}
    else:
        listing, prefix = inside
        names = {path.removeprefix(prefix).partition("/")[0] for path in listing.folders if path.startswith(prefix)}
    return sorted(name for name in names if not _skipped_folder(name))


def listing_of(archive: Path) -> Listing:
    """`list_archive` with the error of this package."""
    try:
        return list_archive(archive)
    except ArchiveError as error:
        raise LayoutError(str(error)) from None


def _inside(root: Path) -> tuple[Listing, str] | None:
    """The archive that `root` is or leads into, and the path in it with a slash at its end; None for a folder."""
    archive = archive_of(root)
    if archive is None:
        return None
    listing, inner = listing_of(archive), root.relative_to(archive).as_posix()
    if inner == ".":
        return listing, ""
    if inner not in listing.folders:
        raise LayoutError(f"{archive}: has no folder {inner!r}{suggest(inner, listing.folders)}")
    return listing, inner + "/"


def _is_folder(path: Path) -> bool:
    archive = archive_of(path)
    return (
        path.is_dir()
        if archive is None
        else archive == path or (path.relative_to(archive).as_posix() in listing_of(archive).folders)
    )


def _skipped_folder(name: str) -> str | None:
    """Why the images in a folder of this name are skipped; None if they are not."""
    return "metadata of macOS" if name == MACOS_METADATA else "hidden folder" if name.startswith(".") else None


def _skipped_file(name: str) -> str | None:
    if name.startswith("."):
        return "hidden file"
    return None if os.path.splitext(name)[1].lower() in EXTENSIONS else NO_IMAGE  # noqa: PTH122 - Path is too slow


def _walk_archive(listing: Listing, prefix: str) -> Iterator[tuple[str, str | None]]:
    """What `_walk` yields, for the folder of an archive."""
    passed = set()
    for path in listing.files:
        if not path.startswith(prefix):
            continue
        path = path.removeprefix(prefix)
        *folders, name = path.split("/")
        depth = next((depth for depth, folder in enumerate(folders, 1) if _skipped_folder(folder)), None)
        if depth is None:
            yield path, _skipped_file(name)
        elif (folder := "/".join(folders[:depth]) + "/") not in passed:
            passed.add(folder)
            yield folder, _skipped_folder(folders[depth - 1])
    for path in listing.links:
        if path.startswith(prefix):
            yield path.removeprefix(prefix), LINK


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
            if reason := _skipped_folder(entry.name):
                yield path + "/", reason
            elif entry.is_symlink() and _identity(entry.stat()) in above:
                yield path + "/", "a link back to a folder above it"
            else:
                yield from _walk(Path(entry.path), path + "/", above)
        else:
            yield path, _skipped_file(entry.name)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _as_text(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
