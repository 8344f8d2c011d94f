"""The data sets that can be generated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toyworld.subsets import classification, clips, rgbd, voc


@dataclass(frozen=True)
class Subset:
    """How a subset is written.

    Attributes:
        version: to be raised when pixels or bytes change.
        write: writes one image (clip) below a folder; takes folder, split, number, size and random generator.
        write_lists: writes the lists of a split; takes folder, split and number of images.
        splits: names of the splits; empty: any.
    """

    version: int
    write: Callable[[Path, str, int, int, np.random.Generator], None]
    write_lists: Callable[[Path, str, int], None] | None = None
    splits: tuple[str, ...] = ()


SUBSETS = {
    # 12 classes, one object per image: root/<split>/<class>/<number>.jpg
    "objects": Subset(1, classification.write_object),
    # 8 classes of scenes: root/<split>/<class>/<number>.jpg
    "scenes": Subset(1, classification.write_scene),
    # 1-4 objects of 10 VOC classes with boxes and masks: root/VOCdevkit/VOC2007
    "voc": Subset(1, voc.write, voc.write_lists, voc.SPLITS),
    # rooms with z-depth in millimeters: root/<split>/{rgb,depth}/<number>.*, listed in root/<split>.txt
    "rgbd": Subset(1, rgbd.write, rgbd.write_lists),
    # clips with camera and object motion and masks of the moving objects, in the layout of DAVIS
    "clips": Subset(2, clips.write, clips.write_lists),
    # 48 bird species, half of them only in train, half only in test: root/<split>/<class>/<number>.jpg
    "retrieval": Subset(1, classification.write_bird, splits=classification.BIRD_SPLITS),
}
