"""PASCAL VOC devkit: several labels per image; boxes or masks."""

import difflib
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from ssltransfer.config.base import listed_names
from ssltransfer.config.formats import Voc
from ssltransfer.data.formats import FORMATS, DatasetListing, LayoutError, read_list

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@FORMATS.register(Voc)
def find(dataset: Voc, *, workers: int = 1) -> DatasetListing:
    """Images of a split; presence of the 20 classes (1 present, 0 difficult, -1 absent).

    Presence comes from the lists ImageSets/Main/<class>_<split>.txt. If all of them are missing it is derived from the
    boxes in Annotations as the lists were: a class is difficult if all its objects are. A set with `targets: masks` is
    a list of ImageSets/Segmentation and has no presence. The root may be the parent of VOCdevkit, VOCdevkit, or
    VOC2007.
    """
    top = Path(dataset.root)
    year = f"VOC{dataset.year}"
    places = (top / year, top / "VOCdevkit" / year, top) if top.name != year else (top,)
    kind = "Segmentation" if dataset.targets == "masks" else "Main"
    root = next((place for place in places if (place / "ImageSets" / kind).is_dir()), None)
    if root is None:
        raise LayoutError(
            f"{top}: no {year}/ImageSets/{kind} in it or in VOCdevkit; check root and year of this dataset."
        )
    main = root / "ImageSets" / "Main"
    listing = root / "ImageSets" / kind / f"{dataset.split}.txt"
    if not listing.is_file():
        there = sorted(path.stem for path in listing.parent.glob("*.txt") if "_" not in path.stem)
        hint = "; the test split is in a separate archive" if dataset.split == "test" else ""
        raise LayoutError(f"{listing}: missing; available: {', '.join(there) or 'no lists'}{hint}.")
    ids = ids_of(listing, root / "JPEGImages")
    notes: list[str] = []
    lists = {name: main / f"{name}_{dataset.split}.txt" for name in CLASSES}
    multi_label = None  # masks contain the classes
    if dataset.targets is None and any(path.is_file() for path in lists.values()):
        multi_label = _from_lists(ids, lists)
    elif dataset.targets != "masks":
        multi_label, unknown = _from_boxes(ids, root / "Annotations")
        if dataset.targets is None:
            notes.append(f"{main}: no class lists of {dataset.split}; reading classes from Annotations.")
        if unknown:
            notes.append(f"{root / 'Annotations'}: {_describe_unknown(unknown)}.")
    target_of = {"boxes": "Annotations/{}.xml", "masks": "SegmentationClass/{}.png"}.get(dataset.targets or "")
    return DatasetListing(
        root,
        [f"JPEGImages/{name}.jpg" for name in ids],
        classes=list(CLASSES),
        multi_label=multi_label,
        notes=notes,
        targets=[target_of.format(name) for name in ids] if target_of else None,
    )


def ids_of(listing: Path, images: Path) -> list[str]:
    """The ids in a list of the JPEG files in the folder `images`."""
    return listed_names(read_list(listing), lambda name: (images / f"{name}.jpg").is_file())


def annotated_objects(xml: bytes) -> list[tuple[str, bool, Element]]:
    """Class, whether it is difficult, and element of each object in an annotation."""
    return [
        ((item.findtext("name") or "").strip(), (item.findtext("difficult") or "0").strip() == "1", item)
        for item in ElementTree.fromstring(xml).iter("object")
    ]


def palette() -> np.ndarray:
    """VOC's color of each mask value, uint8 (256, 3): the bits of the value are spread over red, green and blue."""
    values, colors = np.arange(256)[:, None], np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colors |= ((values >> (3 * bit + np.arange(3)) & 1) << (7 - bit)).astype(np.uint8)
    return colors


def _from_lists(ids: list[str], lists: dict[str, Path]) -> np.ndarray:
    multi_label = np.full((len(ids), len(CLASSES)), -1, np.int8)
    rows = defaultdict(list)  # a list may have an id twice
    for place, name in enumerate(ids):
        rows[name].append(place)
    for column, name in enumerate(CLASSES):
        if not lists[name].is_file():
            raise LayoutError(f"{lists[name]}: missing; expected a list for each of the 20 classes.")
        for number, line in enumerate(read_list(lists[name]).splitlines(), 1):
            fields = line.strip().rsplit(maxsplit=1)
            if not fields:
                continue
            if len(fields) != 2 or fields[1] not in ("-1", "0", "1"):
                raise LayoutError(f"{lists[name]}: line {number} is not an image and -1, 0 or 1; restore this file.")
            multi_label[rows.get(fields[0], []), column] = int(fields[1])
    return multi_label


def _from_boxes(ids: list[str], annotations: Path) -> tuple[np.ndarray, Counter[str]]:
    """Presence, and the number of objects of each name that is not a class of VOC."""
    unknown: Counter[str] = Counter()
    multi_label = np.full((len(ids), len(CLASSES)), -1, np.int8)
    column = {name: place for place, name in enumerate(CLASSES)}
    for row, name in enumerate(ids):
        file = annotations / f"{name}.xml"
        try:
            objects = annotated_objects(file.read_bytes())
        except FileNotFoundError:
            raise LayoutError(
                f"{file}: missing, and there are no class lists in ImageSets/Main either; fetch one or the other."
            ) from None
        except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter two: encodings
            raise LayoutError(f"{file}: not valid XML ({error}); restore this file.") from None
        for kind, difficult, _ in objects:
            if kind in column:
                multi_label[row, column[kind]] = max(multi_label[row, column[kind]], int(not difficult))
            else:
                unknown[kind] += 1
    if unknown and (multi_label < 0).all():
        raise LayoutError(f"{annotations}: {_describe_unknown(unknown)}; rename them to the 20 classes of VOC.")
    return multi_label, unknown


def _describe_unknown(unknown: Counter[str]) -> str:
    """Such as "objects of other classes than VOC's are left out (12): 'Person' 8 (nearest: person), 'kite' 4"."""
    named = []
    for name, count in unknown.most_common(10):
        nearest = difflib.get_close_matches(name.lower(), CLASSES, n=1, cutoff=0.7)
        named.append(f"{name!r} {count}" + (f" (nearest: {nearest[0]})" if nearest else ""))
    more = f" and {len(unknown) - 10} more names" if len(unknown) > 10 else ""
    return f"objects of other classes than VOC's are left out ({unknown.total()}): {', '.join(named)}{more}"
