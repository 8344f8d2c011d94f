"""Places205 and Places365: lists of "path label", and images of 256 px in folders next to them."""

import shutil
from pathlib import Path

from ssltransfer.config.formats import Places205, Places365
from ssltransfer.data.formats import FORMATS, DatasetListing, LayoutError, read_list
from ssltransfer.data.formats.download import download_lock, fetch, missing_dataset_error

_LISTS_365 = {"train": "places365_train_standard.txt", "val": "places365_val.txt"}
_FOLDERS_365 = {"train": ("data_256_standard", "data_256"), "val": ("val_256",)}
_CATEGORIES_365 = "categories_places365.txt"
_FOLDERS_205 = ("images256", "data/vision/torralba/deeplearning/images256")


@FORMATS.register(Places365, Places205)
def find(dataset: Places205 | Places365, *, workers: int = 1) -> DatasetListing:
    """Images of a split in the order of its list; class ids as published."""
    return _find205(Path(dataset.root), dataset.split) if isinstance(dataset, Places205) else _find365(dataset)


def _find365(dataset: Places365) -> DatasetListing:
    root = Path(dataset.root)
    listing = root / _LISTS_365[dataset.split]
    if _folder365(root, dataset.split) is None or not (listing.is_file() and (root / _CATEGORIES_365).is_file()):
        with download_lock(root, dataset.format):
            _fetch(dataset, root)
    folder = _folder365(root, dataset.split)
    assert folder is not None
    names = {label: name for name, label in _pairs(root / _CATEGORIES_365)}
    return _listed(folder, listing, names)


def _folder365(root: Path, split: str) -> Path | None:
    return next((root / name for name in _FOLDERS_365[split] if (root / name).is_dir()), None)


def _fetch(dataset: Places365, root: Path) -> None:
    """Download and unpack to a temporary folder: torchvision takes a partly unpacked archive for a complete one."""
    from torchvision.datasets import Places365 as Fetched

    split = "train-standard" if dataset.split == "train" else "val"
    if _folder365(root, dataset.split) is not None or not dataset.download:
        fetch(dataset, root, lambda download: Fetched(str(root), split, small=True, download=download))
        if _folder365(root, dataset.split) is None:
            raise missing_dataset_error(dataset, root)
        return
    beside = root / ".places365.partial"
    for name in ("data_256", "data_256_standard", "val_256"):
        shutil.rmtree(beside / name, ignore_errors=True)
    beside.mkdir(exist_ok=True)
    fetch(dataset, root, lambda download: Fetched(str(beside), split, small=True, download=download))
    # Archives last: a download that is killed before need not be repeated.
    for path in sorted(beside.iterdir(), key=lambda path: (path.suffix == ".tar", path.is_dir(), path.name)):
        path.replace(root / path.name)
    beside.rmdir()


def _find205(root: Path, split: str) -> DatasetListing:
    name = f"{split}_places205.csv"
    listing = next((file for file in (root / name, root / "trainvalsplit_places205" / name) if file.is_file()), None)
    folder = next((root / name for name in _FOLDERS_205 if (root / name).is_dir()), None)
    if listing is None or folder is None:
        missing = name if listing is None else "images256"
        raise LayoutError(f"{root}: {missing} is missing; unpack the lists and images of Places205 there.")
    # No file of class names was published: the folder of an image, such as a/abbey, is its class.
    names = {label: path.rsplit("/", 1)[0] for path, label in _pairs(listing)}
    return _listed(folder, listing, names)


def _listed(folder: Path, listing: Path, names: dict[int, str]) -> DatasetListing:
    pairs = _pairs(listing)
    classes = [names.get(label, f"class {label}") for label in range(max(names, default=-1) + 1)]
    largest = max((label for _, label in pairs), default=-1)
    if largest >= len(classes):
        raise LayoutError(f"{listing}: label {largest} has no name in {_CATEGORIES_365}; restore these files.")
    return DatasetListing(folder, [path for path, _ in pairs], [label for _, label in pairs], classes)


def _pairs(listing: Path) -> list[tuple[str, int]]:
    """(path, label) of every line; a leading slash of a path is dropped."""
    pairs = []
    for number, line in enumerate(read_list(listing).splitlines(), 1):
        path, _, label = line.strip().rpartition(" ")
        if path and label.isdecimal():
            pairs.append((path.strip().lstrip("/"), int(label)))
        elif line.strip():
            raise LayoutError(f"{listing}: line {number} is not a path and a number; restore this file.")
    return pairs
