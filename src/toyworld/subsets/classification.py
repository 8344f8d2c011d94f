"""Subsets with a folder per class: `objects`, `scenes` and `retrieval` (bird species). Classes alternate by number."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from toyworld.background import random_background
from toyworld.layer import OVERSAMPLE, Layer, Light, Part, Pose
from toyworld.objects import OBJECTS
from toyworld.objects.animals import BirdSpecies, draw_bird
from toyworld.scenes import SCENES
from toyworld.scenes.scene import Scene
from toyworld.sensor import Sensor, save_jpeg
from toyworld.texture import Theme

OBJECT_CLASSES = (
    "bird", "boat", "bottle", "car", "chair", "clock", "fish", "flower", "house", "lamp", "mug", "tree",
)  # fmt: skip
SCENE_CLASSES = tuple(SCENES)
BIRD_SPLITS = ("train", "test")
NUM_SPECIES = 48


def write_object(folder: Path, split: str, number: int, size: int, rng: np.random.Generator) -> None:
    """Write folder/<split>/<class>/<number>.jpg of `objects`."""
    name = OBJECT_CLASSES[number % len(OBJECT_CLASSES)]
    save_jpeg(render_object(name, rng, size), folder / split / name / f"{number:05d}.jpg")


def write_scene(folder: Path, split: str, number: int, size: int, rng: np.random.Generator) -> None:
    """Write folder/<split>/<class>/<number>.jpg of `scenes`."""
    name = SCENE_CLASSES[number % len(SCENE_CLASSES)]
    save_jpeg(render_scene(name, rng, size), folder / split / name / f"{number:05d}.jpg")


def write_bird(folder: Path, split: str, number: int, size: int, rng: np.random.Generator) -> None:
    """Write folder/<split>/bird<species>/<number>.jpg of `retrieval`; every other species belongs to the split."""
    classes = range(BIRD_SPLITS.index(split), NUM_SPECIES, 2)
    k = classes[number % len(classes)]
    parts = draw_bird(bird_species()[k], rng, Theme.random(rng))
    save_jpeg(_render_parts(parts, rng, size), folder / split / f"bird{k:02d}" / f"{number:05d}.jpg")


@lru_cache(maxsize=1)
def bird_species() -> tuple[BirdSpecies, ...]:
    """Return the species, the same for every seed: any two differ in at least 3 of their 6 features."""
    candidates = np.array(list(product(*(range(k) for k in BirdSpecies.NUM_FORMS))))
    chosen = np.empty((0, candidates.shape[1]), int)
    for candidate in np.random.default_rng(2018).permutation(candidates):
        if len(chosen) < NUM_SPECIES and ((chosen != candidate).sum(1) >= 3).all():
            chosen = np.concatenate([chosen, candidate[None]])
    return tuple(BirdSpecies(*(int(value) for value in row)) for row in chosen)


def render_object(name: str, rng: np.random.Generator, size: int) -> Image.Image:
    """Render an object of class `name` on a background; size x size pixels."""
    return _render_parts(OBJECTS[name](rng, Theme.random(rng)), rng, size)


def render_scene(name: str, rng: np.random.Generator, size: int) -> Image.Image:
    """Render a scene of class `name`; size x size pixels."""
    scene = Scene(rng, size * OVERSAMPLE)
    SCENES[name](scene)
    fine = scene.layer.rgb[:, ::-1] if rng.random() < 0.5 else scene.layer.rgb
    return Sensor.random(rng).capture(np.ascontiguousarray(fine), rng)


def _render_parts(parts: list[Part], rng: np.random.Generator, size: int) -> Image.Image:
    """Render an object in a random pose on a random background; size x size pixels."""
    side = size * OVERSAMPLE
    light = Light.random(rng)
    pose = _random_pose(rng, side)
    layer, background = Layer(side, side), random_background(rng, side, side, light)
    layer.add_all(parts, pose, light)
    shadow = layer.shadow(light, pose.scale * rng.uniform(0.12, 0.4), rng.uniform(0.25, 0.6))
    return Sensor.random(rng).capture(layer.over(background * shadow), rng)


def _random_pose(rng: np.random.Generator, side: int) -> Pose:
    """Draw scale, position, rotation (at most 15 degrees), mirroring and a slight stretch."""
    scale = rng.uniform(0.3, 0.47) * side
    room = side / 2 - 0.8 * scale
    center = (side / 2 + rng.uniform(-1, 1) * room, side / 2 + rng.uniform(-1, 1) * room)
    pose = Pose.of(scale, center, np.radians(rng.uniform(-15, 15)), bool(rng.random() < 0.5))
    stretch = np.array([[rng.uniform(0.85, 1.15), rng.uniform(-0.12, 0.12)], [0.0, 1.0]])
    return Pose(pose.linear @ stretch, pose.shift)
