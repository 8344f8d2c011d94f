"""Tiny versions of ImageNet, Places205, VOC2007, VOC2012 and SBD in the directories of config/noroozi2018.yaml."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from ssltransfer.data.formats.voc import CLASSES

BOX = ("xmin", "ymin", "xmax", "ymax")


def stand_in(data: Path) -> None:
    """Four noise images for every split of every set."""
    for split in ("train", "val"):
        for wnid in ("n01440764", "n01443537"):
            for number in range(2):
                _image(data / "imagenet" / split / wnid / f"{split}_{number}.JPEG")
        names = [f"{kind}/gsun_{split}{number}.jpg" for kind in ("a/abbey", "y/yard") for number in range(2)]
        for name in names:
            _image(data / "places205" / "images256" / name)
        listing = "".join(f"{name} {number // 2}\n" for number, name in enumerate(names))
        (data / "places205" / f"{split}_places205.csv").write_text(listing)
    home = data / "VOCdevkit" / "VOC2007"
    (home / "ImageSets" / "Main").mkdir(parents=True)
    for first, split in ((1, "trainval"), (5, "test")):
        names = [f"{number:06d}" for number in range(first, first + 4)]
        for name in names:
            _image(home / "JPEGImages" / f"{name}.jpg")
        (home / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        (home / "Annotations").mkdir(exist_ok=True)
        for number, name in enumerate(names):
            box = "".join(f"<{side}>{value}</{side}>" for side, value in zip(BOX, (3, 4, 30, 31), strict=True))
            thing = f"<object><name>{CLASSES[number]}</name><bndbox>{box}</bndbox></object>"
            (home / "Annotations" / f"{name}.xml").write_text(f"<annotation>{thing}</annotation>")
        for place, kind in enumerate(CLASSES):
            lines = [f"{name} {1 if place % 4 == number else -1:2d}\n" for number, name in enumerate(names)]
            (home / "ImageSets" / "Main" / f"{kind}_{split}.txt").write_text("".join(lines))
    _segmented(data)
    (data / "proposals").mkdir()
    for split in ("trainval", "test"):
        savemat(data / "proposals" / f"voc_2007_{split}.mat", {"images": [], "boxes": []})


def _segmented(data: Path) -> None:
    """Two images of SBD, and three of VOC2012, of which SBD has one."""
    sbd, voc = data / "sbd" / "dataset", data / "VOCdevkit" / "VOC2012"
    mask = np.zeros((40, 48), np.uint8)
    mask[5:20, 8:30] = 9
    for name in ("2008_000001", "2008_000002"):
        _image(sbd / "img" / f"{name}.jpg")
        (sbd / "cls").mkdir(exist_ok=True)
        savemat(sbd / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": mask}})
    (sbd / "train.txt").write_text("2008_000001\n2008_000002\n")
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True)
    (voc / "SegmentationClass").mkdir()
    names = ("2008_000002", "2009_000003", "2009_000004")
    for name in names:
        _image(voc / "JPEGImages" / f"{name}.jpg")
        Image.fromarray(mask).save(voc / "SegmentationClass" / f"{name}.png")
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("".join(f"{name}\n" for name in names))


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(path.name.encode())).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(noise).save(path, format="JPEG")
