"""ImageNet 2012 (ILSVRC): folders by WordNet id, or a flat val/ with the devkit's ground truth."""

import re
import tarfile
from dataclasses import replace
from pathlib import Path

from ssltransfer.config.formats import ImageNet
from ssltransfer.data.formats import FORMATS, DatasetListing, LayoutError, folders, read_mat

TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
DEVKIT = "ILSVRC2012_devkit_t12"


@FORMATS.register(ImageNet)
def find(dataset: ImageNet, *, workers: int = 1) -> DatasetListing:
    """Images of train or val; class id = position of the WordNet id among the sorted ids, as in torchvision.

    If train/ exists, its folders define the classes of val too, so that both have equal ids in a part of the set. The
    folders may be below ILSVRC/Data/CLS-LOC or Data/CLS-LOC, as in the archive of the challenge.
    """
    top = Path(dataset.root)
    inner = (top, top / "ILSVRC" / "Data" / "CLS-LOC", top / "Data" / "CLS-LOC")
    root = next((place for place in inner if (place / dataset.split).is_dir()), top)
    folder = root / dataset.split
    if not folder.is_dir():
        raise LayoutError(f"{folder}: no such folder; root must contain train/WNID or val.")
    train = folders.class_names(root / "train") if (root / "train").is_dir() else []
    if dataset.split == "train":
        return folders.find_classes(folder)
    if folders.class_names(folder):
        return _renumbered(folders.find_classes(folder), train)
    return _flat(folder, top, train)


def _renumbered(found: DatasetListing, train: list[str]) -> DatasetListing:
    strangers = sorted(set(found.classes) - set(train))
    if train and strangers:
        raise LayoutError(f"{found.root}: class {strangers[0]!r} is not in train; val must have the same classes.")
    if not train or found.labels is None:
        return found
    number = {wnid: label for label, wnid in enumerate(train)}
    return replace(found, labels=[number[found.classes[label]] for label in found.labels], classes=train)


def _flat(folder: Path, top: Path, train: list[str]) -> DatasetListing:
    """Read a flat val/: line n of the ground truth is the devkit's class id of ILSVRC2012_val_<n>.JPEG."""
    found = folders.find_images(folder)
    truth, wnid_of = _devkit(top)
    classes = train or sorted(wnid_of.values())
    number = {wnid: label for label, wnid in enumerate(classes)}
    paths, labels, skipped = [], [], dict(found.skipped)
    for path in found.paths:
        match = re.search(r"(\d{8})\.[^.]+$", path)
        if not match or not 1 <= int(match[1]) <= len(truth):
            raise LayoutError(f"{folder / path}: {TRUTH} has no line for this image; it has {len(truth)} lines.")
        wnid = wnid_of.get(truth[int(match[1]) - 1])
        if wnid in number:
            paths.append(path)
            labels.append(number[wnid])
        else:
            skipped[path] = f"its class {wnid} is not in train"
    return DatasetListing(folder, paths, labels, classes, skipped=skipped)


def _devkit(root: Path) -> tuple[list[int], dict[int, str]]:
    """The class id of every validation image, and the WordNet id of every class id (not sorted)."""
    files = _devkit_files(root)
    meta = read_mat(files[META], f"{root}: the devkit's {META}")
    try:
        truth = [int(line) for line in files[TRUTH].split()]
        # Columns: id, WordNet id, words, gloss, number of children. Inner nodes of the hierarchy have children.
        return truth, {int(row[0]): str(row[1]) for row in meta["synsets"] if row[4] == 0}
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise LayoutError(f"{root}: the devkit's {META} or {TRUTH} is damaged ({error}); download it again.") from None


def _devkit_files(root: Path) -> dict[str, bytes]:
    for folder in (root, root / "data", root / DEVKIT / "data", root / DEVKIT, root / "devkit" / "data"):
        if (folder / TRUTH).is_file() and (folder / META).is_file():
            return {name: (folder / name).read_bytes() for name in (TRUTH, META)}
    for archive in (root / f"{DEVKIT}.tar.gz", root / f"{DEVKIT}.tar"):
        if archive.is_file():
            return _unpacked(archive)
    raise LayoutError(
        f"{root}: val/ has no class folders, so the classes of its images must come from the devkit; "
        f"put {DEVKIT}.tar.gz here, or {TRUTH} and {META} from it."
    )


def _unpacked(archive: Path) -> dict[str, bytes]:
    files = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = Path(member.name).name
                if name in (TRUTH, META) and (content := tar.extractfile(member)):
                    files[name] = content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise LayoutError(f"{archive}: cannot be unpacked ({error}); download it again.") from None
    if len(files) < 2:
        raise LayoutError(f"{archive}: does not contain {TRUTH} or {META}; download the devkit of task 1 and 2 again.")
    return files
