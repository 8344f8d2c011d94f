"""Tiny stand-ins for ImageNet, Places205 and VOC2007, in the folders that config/noroozi2018.yaml names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ssltransfer.data.layouts.voc import CLASSES


def stand_in(data: Path) -> None:
    """Four noise pictures for every split of every set."""
    for split in ("train", "val"):
        for wnid in ("n01440764", "n01443537"):
            for number in range(2):
                _picture(data / "imagenet" / split / wnid / f"{split}_{number}.JPEG")
        names = [f"{kind}/gsun_{split}{number}.jpg" for kind in ("a/abbey", "y/yard") for number in range(2)]
        for name in names:
            _picture(data / "places205" / "images256" / name)
        listing = "".join(f"{name} {number // 2}\n" for number, name in enumerate(names))
        (data / "places205" / f"{split}_places205.csv").write_text(listing)
    home = data / "VOCdevkit" / "VOC2007"
    (home / "ImageSets" / "Main").mkdir(parents=True)
    for first, split in ((1, "trainval"), (5, "test")):
        names = [f"{number:06d}" for number in range(first, first + 4)]
        for name in names:
            _picture(home / "JPEGImages" / f"{name}.jpg")
        (home / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for place, kind in enumerate(CLASSES):
            lines = [f"{name} {1 if place % 4 == number else -1:2d}\n" for number, name in enumerate(names)]
            (home / "ImageSets" / "Main" / f"{kind}_{split}.txt").write_text("".join(lines))


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(path.name.encode())).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(noise).save(path, format="JPEG")
