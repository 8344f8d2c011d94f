"""Set `voc`: several things a picture with boxes and masks, in the layout of the PASCAL VOC 2007 development kit.

Boxes are the extents of a thing's pixels in SegmentationObject, 1-based and inclusive. Every picture has masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from toyworld.backdrop import backdrop
from toyworld.brush import OVERSAMPLE, Layer, Light, Pose
from toyworld.camera import Camera, save
from toyworld.seeds import stream
from toyworld.things import THINGS
from toyworld.things.wardrobe import Coat

VERSION = 1
SPLITS = ("trainval", "test")
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
DRAWN = tuple(name for name in CLASSES if name in THINGS)
BORDER = 255
_KIT = Path("VOCdevkit/VOC2007")
_FIRST = {"trainval": 1, "test": 500_001}
_SHAPES = ((4, 3), (3, 4), (1, 1), (3, 2))
_LEAST_PIXELS = 30
# VOC's color of each index: the bits of the index spread over red, green and blue. Flat, as Pillow takes it.
_PALETTE = [
    sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))
    for index in range(256)
    for channel in range(3)
]


@dataclass(frozen=True)
class Thing:
    """One annotated thing; box is xmin, ymin, xmax, ymax, 1-based and inclusive."""

    name: str
    box: tuple[int, int, int, int]
    truncated: bool
    difficult: bool


@dataclass(frozen=True)
class Sheet:
    """A picture, its things in the order of their numbers, and their numbers per pixel (0 ground, 255 border)."""

    picture: Image.Image
    things: list[Thing]
    numbers: NDArray[np.uint8]


def sheet(rng: np.random.Generator, size: int) -> Sheet:
    """Draw a picture whose shorter side is `size`, with 1 to 4 things that may hide one another."""
    across, down = _SHAPES[int(rng.integers(len(_SHAPES)))]
    width, height = size * across // min(across, down), size * down // min(across, down)
    light = Light.random(rng)
    fine = backdrop(rng, height * OVERSAMPLE, width * OVERSAMPLE, light)
    numbers = np.zeros((height, width), np.uint8)
    names, shown, outside = [], [], []
    border = max(1, round(size / 120))
    count = int(rng.integers(1, 5))
    scale = rng.uniform(0.18, 0.46, count) * (1.0 if count < 3 else 0.8) * size
    for k, s in enumerate(np.sort(scale)):
        name = str(rng.choice(DRAWN))
        centre = (rng.uniform(0.12, 0.88) * width, (rng.uniform(0.15, 0.6) + 0.25 * k / count) * height)
        pose = Pose.of(
            s * OVERSAMPLE,
            (centre[0] * OVERSAMPLE, centre[1] * OVERSAMPLE),
            np.radians(rng.uniform(-10, 10)),
            bool(rng.random() < 0.5),
        )
        parts = THINGS[name](rng, Coat.random(rng))
        layer = Layer(*fine.shape[:2])
        layer.add_all(parts, pose, light)
        fine = layer.over(fine * layer.shadow(light, 0.25 * s * OVERSAMPLE, 0.45)[..., None])
        mask = layer.cover.reshape(height, OVERSAMPLE, width, OVERSAMPLE).mean((1, 3)) > 0.5
        wider = np.asarray(Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * border + 1)))
        numbers[(wider > 0) & ~mask] = BORDER
        numbers[mask] = k + 1
        names.append(name)
        shown.append(int(mask.sum()))
        corners = np.concatenate([pose(part.outline) for part in parts]) / OVERSAMPLE
        outside.append(bool((corners.min(0) < -1).any() or (corners.max(0) > (width + 1, height + 1)).any()))
    things: list[Thing] = []
    kept = np.where(numbers == BORDER, BORDER, 0).astype(np.uint8)
    for k, name in enumerate(names):
        rows, columns = np.nonzero(numbers == k + 1)
        if len(rows) < _LEAST_PIXELS:
            # Too little to be told apart from the ground: neither annotated nor counted as ground.
            kept[rows, columns] = BORDER
            continue
        box = (int(columns.min()) + 1, int(rows.min()) + 1, int(columns.max()) + 1, int(rows.max()) + 1)
        difficult = len(rows) < 0.4 * shown[k] or len(rows) < 0.006 * size * size
        things.append(Thing(name, box, outside[k], difficult))
        kept[rows, columns] = len(things)
    return Sheet(Camera.random(rng).take(fine, rng), things, kept)


def write(folder: Path, split: str, number: int, size: int, seed: int) -> None:
    """Write picture, annotation and both masks of picture `number`."""
    drawn = sheet(stream(seed, "voc", split, number), size)
    kit, name = folder / _KIT, f"{_FIRST[split] + number:06d}"
    save(drawn.picture, kit / "JPEGImages" / f"{name}.jpg")
    of_class = np.zeros(256, np.uint8)
    of_class[BORDER] = BORDER
    for k, thing in enumerate(drawn.things):
        of_class[k + 1] = CLASSES.index(thing.name) + 1
    for kind, mask in (("SegmentationObject", drawn.numbers), ("SegmentationClass", of_class[drawn.numbers])):
        (kit / kind).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(mask)
        image.putpalette(_PALETTE)
        image.save(kit / kind / f"{name}.png")
    (kit / "Annotations").mkdir(parents=True, exist_ok=True)
    tree = ElementTree.ElementTree(_annotation(name, drawn))
    ElementTree.indent(tree, "\t")
    tree.write(kit / "Annotations" / f"{name}.xml")


def _annotation(name: str, drawn: Sheet) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    width, height = drawn.picture.size
    for tag, text in (("folder", _KIT.name), ("filename", f"{name}.jpg")):
        ElementTree.SubElement(root, tag).text = text
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    ElementTree.SubElement(root, "segmented").text = "1"
    for thing in drawn.things:
        item = ElementTree.SubElement(root, "object")
        fields = (
            ("name", thing.name), ("pose", "Unspecified"), ("truncated", str(int(thing.truncated))),
            ("difficult", str(int(thing.difficult))),
        )  # fmt: skip
        for tag, text in fields:
            ElementTree.SubElement(item, tag).text = text
        box = ElementTree.SubElement(item, "bndbox")
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), thing.box, strict=True):
            ElementTree.SubElement(box, tag).text = str(value)
    return root


def lists(folder: Path, split: str, n: int) -> None:
    """Write ImageSets: the ids of the split, and a list a class (-1 absent, 0 only difficult ones, 1 present)."""
    kit = folder / _KIT
    names = [f"{_FIRST[split] + number:06d}" for number in range(n)]
    labels = {name: _labels(kit / "Annotations" / f"{name}.xml") for name in names}
    halves = {split: names}
    if split == "trainval":
        halves |= {"train": names[::2], "val": names[1::2]}
    for kind in ("Main", "Segmentation"):
        (kit / "ImageSets" / kind).mkdir(parents=True)
    for part, ids in halves.items():
        for kind in ("Main", "Segmentation"):
            (kit / "ImageSets" / kind / f"{part}.txt").write_text("".join(f"{name}\n" for name in ids))
        for cls in CLASSES:
            lines = "".join(f"{name} {labels[name].get(cls, -1):2d}\n" for name in ids)
            (kit / "ImageSets" / "Main" / f"{cls}_{part}.txt").write_text(lines)


def _labels(annotation: Path) -> dict[str, int]:
    labels: dict[str, int] = {}
    for item in ElementTree.parse(annotation).getroot().iter("object"):
        name, difficult = item.findtext("name", ""), item.findtext("difficult") == "1"
        labels[name] = max(labels.get(name, 0), 0 if difficult else 1)
    return labels
