"""Set `objects`: one thing a picture, in the folder of its class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from toyworld.backdrop import backdrop
from toyworld.brush import OVERSAMPLE, Layer, Light, Part, Pose
from toyworld.camera import Camera, save
from toyworld.seeds import stream
from toyworld.texture import Array
from toyworld.things import THINGS
from toyworld.things.wardrobe import Coat

VERSION = 1
CLASSES = (
    "bird", "boat", "bottle", "car", "chair", "clock", "fish", "flower", "house", "lamp", "mug", "tree",
)  # fmt: skip


def picture(name: str, rng: np.random.Generator, size: int) -> Image.Image:
    """Draw one thing of class `name` on a backdrop; size x size pixels."""
    coat = Coat.random(rng)
    return portrait(THINGS[name](rng, coat), rng, size)


def portrait(parts: list[Part], rng: np.random.Generator, size: int) -> Image.Image:
    """Draw one thing, posed at random, on a backdrop; size x size pixels."""
    side = size * OVERSAMPLE
    light = Light.random(rng)
    pose = random_pose(rng, side)
    ground = backdrop(rng, side, side, light)
    fine = stand(parts, pose, light, ground, rng)
    return Camera.random(rng).take(fine, rng)


def random_pose(rng: np.random.Generator, side: int) -> Pose:
    """Draw scale, place, tilt (within 15 degrees), mirroring and a slight stretch."""
    scale = rng.uniform(0.3, 0.47) * side
    room = side / 2 - 0.8 * scale
    centre = (side / 2 + rng.uniform(-1, 1) * room, side / 2 + rng.uniform(-1, 1) * room)
    pose = Pose.of(scale, centre, np.radians(rng.uniform(-15, 15)), bool(rng.random() < 0.5))
    stretch = np.array([[rng.uniform(0.85, 1.15), rng.uniform(-0.12, 0.12)], [0.0, 1.0]])
    return Pose(pose.linear @ stretch, pose.shift)


def stand(parts: list[Part], pose: Pose, light: Light, ground: Array, rng: np.random.Generator) -> Array:
    """Return the ground with the thing before it and its shadow on it."""
    layer = Layer(*ground.shape[:2])
    layer.add_all(parts, pose, light)
    reach = float(np.sqrt(abs(np.linalg.det(pose.linear)))) * rng.uniform(0.12, 0.4)
    return layer.over(ground * layer.shadow(light, reach, rng.uniform(0.25, 0.6))[..., None])


def write(folder: Path, split: str, number: int, size: int, seed: int) -> None:
    """Write picture `number` to folder/<split>/<class>/<number>.jpg; classes take turns."""
    name = CLASSES[number % len(CLASSES)]
    save(picture(name, stream(seed, "objects", split, number), size), folder / split / name / f"{number:05d}.jpg")
