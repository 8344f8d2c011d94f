"""The development kit is readable by torchvision, and its boxes, masks and lists agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCDetection, VOCSegmentation

from toyworld import generate
from toyworld.subsets.voc import CLASSES, DRAWN_CLASSES

N = 24


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    generate("voc", folder, split="trainval", num_images=N, size=64)
    generate("voc", folder, split="test", num_images=8, size=64)
    return folder


def samples(root: Path, split: str) -> list[tuple[Image.Image, dict[str, Any]]]:
    """Return images and annotations as read by torchvision."""
    found = VOCDetection(str(root), "2007", split)
    return [(image, annotation["annotation"]) for image, annotation in (found[i] for i in range(len(found)))]


def read(file: Path) -> list[str]:
    return file.read_text().splitlines()


def test_voc_boxes_are_the_extents_of_the_masks(root: Path) -> None:
    kit = root / "VOCdevkit" / "VOC2007"
    names = set()
    for image_set in ("trainval", "test"):
        for image, record in samples(root, image_set):
            stem = record["filename"][:-4]
            numbers = np.asarray(Image.open(kit / "SegmentationObject" / f"{stem}.png"))
            classes = np.asarray(Image.open(kit / "SegmentationClass" / f"{stem}.png"))
            assert image.size == (int(record["size"]["width"]), int(record["size"]["height"]))
            assert numbers.shape == image.size[::-1]
            assert set(np.unique(numbers)) <= {*range(len(record["object"]) + 1), 255}
            assert ((numbers == 255) == (classes == 255)).all()
            assert ((numbers == 0) == (classes == 0)).all()
            assert 1 <= len(record["object"]) <= 4
            for number, item in enumerate(record["object"], 1):
                rows, columns = np.nonzero(numbers == number)
                box = [int(item["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")]
                assert box == [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]
                assert (classes[numbers == number] == CLASSES.index(item["name"]) + 1).all()
                assert {item["truncated"], item["difficult"]} <= {"0", "1"}
                names.add(item["name"])
    assert names <= set(DRAWN_CLASSES)
    assert len(DRAWN_CLASSES) >= 8
    assert len(names) >= 8


def test_voc_lists_agree_with_the_annotations(root: Path) -> None:
    main = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    ids = {part: read(main / f"{part}.txt") for part in ("trainval", "train", "val", "test")}
    assert sorted(ids["train"] + ids["val"]) == ids["trainval"]
    assert len(ids["trainval"]) == N
    assert not set(ids["trainval"]) & set(ids["test"])
    truth: dict[str, dict[str, list[bool]]] = {}
    for image_set in ("trainval", "test"):
        for stem, (_, record) in zip(ids[image_set], samples(root, image_set), strict=True):
            truth[stem] = {}
            for item in record["object"]:
                truth[stem].setdefault(item["name"], []).append(item["difficult"] == "1")
    seen = set()
    for cls in CLASSES:
        for part, names in ids.items():
            rows = [line.split() for line in read(main / f"{cls}_{part}.txt")]
            assert [row[0] for row in rows] == names
            for stem, value in rows:
                marks = truth[stem].get(cls)
                assert int(value) == (-1 if marks is None else 0 if all(marks) else 1)
                seen.add(value)
    assert {"-1", "1"} <= seen


def test_voc_masks_have_the_palette_of_the_kit(root: Path) -> None:
    found = VOCSegmentation(str(root), "2007", "val")
    assert len(found) == N // 2
    mask = found[0][1]
    assert mask.mode == "P"
    colors = np.array(mask.getpalette()).reshape(256, 3)
    # The development kit's own color map: background, aeroplane, bicycle, ..., tvmonitor, border.
    assert colors[[0, 1, 2, 3, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip


def test_voc_objects_have_void_borders(root: Path) -> None:
    for file in (root / "VOCdevkit" / "VOC2007" / "SegmentationObject").glob("*.png"):
        numbers = np.asarray(Image.open(file)).astype(int)
        for a, b in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])):
            assert not ((a != b) & (a != 255) & (b != 255)).any()
