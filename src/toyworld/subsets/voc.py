"""Subset `voc`: several objects per image with boxes and masks, in the layout of the PASCAL VOC 2007 development kit.

A box is the extent of an object's pixels in SegmentationObject, 1-based and inclusive. Every image has masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from toyworld.background import random_background
from toyworld.layer import OVERSAMPLE, Layer, Light, Pose
from toyworld.objects import OBJECTS
from toyworld.sensor import Sensor, save_jpeg
from toyworld.texture import Theme

SPLITS = ("trainval", "test")
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
DRAWN_CLASSES = tuple(name for name in CLASSES if name in OBJECTS)
VOID = 255
_KIT = Path("VOCdevkit/VOC2007")
_FIRST_ID = {"trainval": 1, "test": 500_001}
_ASPECT_RATIOS = ((4, 3), (3, 4), (1, 1), (3, 2))
_MIN_PIXELS = 30
# VOC's color of each mask value: the bits of the value spread over red, green and blue. Flat, as Pillow takes it.
_PALETTE = [
    sum((value >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))
    for value in range(256)
    for channel in range(3)
]


@dataclass(frozen=True)
class AnnotatedObject:
    """One annotated object; box is xmin, ymin, xmax, ymax, 1-based and inclusive."""

    name: str
    box: tuple[int, int, int, int]
    truncated: bool
    difficult: bool


@dataclass(frozen=True)
class AnnotatedImage:
    """An image, its objects, and the number of the object at each pixel (1, 2, ...; 0 background, 255 void)."""

    image: Image.Image
    objects: list[AnnotatedObject]
    instances: NDArray[np.uint8]


def render_image(rng: np.random.Generator, size: int) -> AnnotatedImage:
    """Render an image whose shorter side is `size`, with 1 to 4 objects that may occlude one another."""
    across, down = _ASPECT_RATIOS[int(rng.integers(len(_ASPECT_RATIOS)))]
    width, height = size * across // min(across, down), size * down // min(across, down)
    light = Light.random(rng)
    fine = random_background(rng, height * OVERSAMPLE, width * OVERSAMPLE, light)
    drawn = np.zeros((height, width), np.uint8)
    names, num_pixels, truncated = [], [], []
    border = max(1, round(size / 120))
    count = int(rng.integers(1, 5))
    scales = rng.uniform(0.18, 0.46, count) * (1.0 if count < 3 else 0.8) * size
    for k, scale in enumerate(np.sort(scales)):
        name = str(rng.choice(DRAWN_CLASSES))
        x, y = rng.uniform(0.12, 0.88) * width, (rng.uniform(0.15, 0.6) + 0.25 * k / count) * height
        center, angle = (x * OVERSAMPLE, y * OVERSAMPLE), np.radians(rng.uniform(-10, 10))
        pose = Pose.of(scale * OVERSAMPLE, center, angle, bool(rng.random() < 0.5))
        parts = OBJECTS[name](rng, Theme.random(rng))
        layer = Layer(*fine.shape[:2])
        layer.add_all(parts, pose, light)
        fine = layer.over(fine * layer.shadow(light, 0.25 * scale * OVERSAMPLE, 0.45))
        mask = layer.mask()
        wider = np.asarray(Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * border + 1)))
        drawn[(wider > 0) & ~mask] = VOID
        drawn[mask] = k + 1
        corners = np.concatenate([pose(part.outline) for part in parts]) / OVERSAMPLE
        names.append(name)
        num_pixels.append(int(mask.sum()))
        truncated.append(bool((corners.min(0) < -1).any() or (corners.max(0) > (width + 1, height + 1)).any()))
    objects: list[AnnotatedObject] = []
    instances = np.where(drawn == VOID, VOID, 0).astype(np.uint8)
    for k, name in enumerate(names):
        rows, columns = np.nonzero(drawn == k + 1)
        if len(rows) < _MIN_PIXELS:
            # Too small to recognize: neither annotated nor counted as background.
            instances[rows, columns] = VOID
            continue
        box = (int(columns.min()) + 1, int(rows.min()) + 1, int(columns.max()) + 1, int(rows.max()) + 1)
        difficult = len(rows) < 0.4 * num_pixels[k] or len(rows) < 0.006 * size * size
        objects.append(AnnotatedObject(name, box, truncated[k], difficult))
        instances[rows, columns] = len(objects)
    return AnnotatedImage(Sensor.random(rng).capture(fine, rng), objects, instances)


def write(folder: Path, split: str, number: int, size: int, rng: np.random.Generator) -> None:
    """Write image, annotation and both masks of image `number`."""
    rendered = render_image(rng, size)
    kit, name = folder / _KIT, f"{_FIRST_ID[split] + number:06d}"
    save_jpeg(rendered.image, kit / "JPEGImages" / f"{name}.jpg")
    class_of = np.zeros(256, np.uint8)
    class_of[VOID] = VOID
    for k, item in enumerate(rendered.objects, 1):
        class_of[k] = CLASSES.index(item.name) + 1
    masks = {"SegmentationObject": rendered.instances, "SegmentationClass": class_of[rendered.instances]}
    for kind, mask in masks.items():
        (kit / kind).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(mask)
        image.putpalette(_PALETTE)
        image.save(kit / kind / f"{name}.png")
    (kit / "Annotations").mkdir(parents=True, exist_ok=True)
    tree = ElementTree.ElementTree(_annotation(name, rendered))
    ElementTree.indent(tree, "\t")
    tree.write(kit / "Annotations" / f"{name}.xml")


def _annotation(name: str, rendered: AnnotatedImage) -> ElementTree.Element:
    width, height = rendered.image.size
    root = ElementTree.Element("annotation")
    _add_fields(root, folder=_KIT.name, filename=f"{name}.jpg")
    _add_fields(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
    _add_fields(root, segmented=1)
    for item in rendered.objects:
        element = ElementTree.SubElement(root, "object")
        truncated, difficult = int(item.truncated), int(item.difficult)
        _add_fields(element, name=item.name, pose="Unspecified", truncated=truncated, difficult=difficult)
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), item.box, strict=True))
        _add_fields(ElementTree.SubElement(element, "bndbox"), **box)
    return root


def _add_fields(element: ElementTree.Element, **fields: str | int) -> None:
    for tag, value in fields.items():
        ElementTree.SubElement(element, tag).text = str(value)


def write_lists(folder: Path, split: str, num_images: int) -> None:
    """Write ImageSets: the ids of the split, and one list per class (-1 absent, 0 only difficult, 1 present)."""
    kit = folder / _KIT
    names = [f"{_FIRST_ID[split] + number:06d}" for number in range(num_images)]
    labels = {name: _labels(kit / "Annotations" / f"{name}.xml") for name in names}
    ids_of = {split: names}
    if split == "trainval":
        ids_of |= {"train": names[::2], "val": names[1::2]}
    for kind in ("Main", "Segmentation"):
        (kit / "ImageSets" / kind).mkdir(parents=True)
        for part, ids in ids_of.items():
            (kit / "ImageSets" / kind / f"{part}.txt").write_text("".join(f"{name}\n" for name in ids))
    for part, ids in ids_of.items():
        for cls in CLASSES:
            lines = "".join(f"{name} {labels[name].get(cls, -1):2d}\n" for name in ids)
            (kit / "ImageSets" / "Main" / f"{cls}_{part}.txt").write_text(lines)


def _labels(annotation: Path) -> dict[str, int]:
    labels: dict[str, int] = {}
    for item in ElementTree.parse(annotation).getroot().iter("object"):
        name, difficult = item.findtext("name", ""), item.findtext("difficult") == "1"
        labels[name] = max(labels.get(name, 0), 0 if difficult else 1)
    return labels
