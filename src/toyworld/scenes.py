"""Set `scenes`: one place a picture, in the folder of its class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from toyworld.brush import OVERSAMPLE
from toyworld.camera import Camera, save
from toyworld.places import PLACES
from toyworld.places.view import View
from toyworld.seeds import stream

VERSION = 1
CLASSES = tuple(PLACES)


def picture(name: str, rng: np.random.Generator, size: int) -> Image.Image:
    """Draw one place of class `name`; size x size pixels."""
    view = View(rng, size * OVERSAMPLE)
    PLACES[name](view)
    fine = view.layer.rgb[:, ::-1] if rng.random() < 0.5 else view.layer.rgb
    return Camera.random(rng).take(np.ascontiguousarray(fine), rng)


def write(folder: Path, split: str, number: int, size: int, seed: int) -> None:
    """Write picture `number` to folder/<split>/<class>/<number>.jpg; classes take turns."""
    name = CLASSES[number % len(CLASSES)]
    save(picture(name, stream(seed, "scenes", split, number), size), folder / split / name / f"{number:05d}.jpg")
