"""PASCAL VOC devkit: several labels a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssltransfer.config.formats import Voc
from ssltransfer.data.layouts import Found, LayoutError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def find(dataset: Voc, *, workers: int = 1) -> Found:
    """Pictures of a split; presence of the 20 classes from ImageSets/Main (1 present, 0 difficult, -1 absent)."""
    root = Path(dataset.root) / f"VOC{dataset.year}"
    if not root.is_dir() and (Path(dataset.root) / "VOCdevkit").is_dir():
        root = Path(dataset.root) / "VOCdevkit" / f"VOC{dataset.year}"
    main = root / "ImageSets" / "Main"
    listing = main / f"{dataset.split}.txt"
    if not listing.is_file():
        raise LayoutError(f"{listing}: missing; root must hold VOC{dataset.year} with ImageSets/Main.")
    ids = listing.read_text().split()
    presence = np.full((len(ids), len(CLASSES)), -1, np.int8)
    row = {name: place for place, name in enumerate(ids)}
    for column, name in enumerate(CLASSES):
        file = main / f"{name}_{dataset.split}.txt"
        if not file.is_file():
            raise LayoutError(f"{file}: missing; each of the 20 classes has a list for each split.")
        for line in file.read_text().splitlines():
            fields = line.split()
            if len(fields) == 2 and fields[0] in row:
                presence[row[fields[0]], column] = int(fields[1])
    return Found(root, [f"JPEGImages/{name}.jpg" for name in ids], classes=list(CLASSES), presence=presence)
