"""Backgrounds of objects, drawn independently of the object's class."""

from __future__ import annotations

import numpy as np

from toyworld.layer import Layer, Light, Part, Pose
from toyworld.outline import blob, box, oval, polygon, rod
from toyworld.texture import Array, Texture, distinct_color, noise, random_color, random_texture


def random_background(rng: np.random.Generator, height: int, width: int, light: Light) -> Array:
    """Draw a background (height, width, 3) float32 in 0..1: a wall, a floor in front of a wall, perhaps clutter."""
    kind = int(rng.integers(5))
    x = np.linspace(0, 2 * width / height, width, dtype=np.float32)[None, :]
    y = np.linspace(0, 2, height, dtype=np.float32)[:, None]
    if kind == 0:
        color = _gradient(rng, x, y)
    elif kind == 1:
        color = _clouds(rng, x, y)
    elif kind == 2:
        color = random_texture(rng, frequency=(0.8, 3.5)).at(x, y)
    else:
        color = _wall_and_floor(rng, x, y)
    a, k = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.3)
    uneven_light = 1 + k * (np.cos(a) * (x - 1) + np.sin(a) * (y - 1)).astype(np.float32) * 0.7
    color = color * uneven_light[..., None]
    layer = Layer(height, width, np.ascontiguousarray(np.clip(color, 0, 1), np.float32))
    if kind in (1, 4) or rng.random() < 0.35:
        _add_clutter(rng, layer, light, int(rng.integers(3, 11)))
    return layer.rgb


def _add_clutter(rng: np.random.Generator, layer: Layer, light: Light, count: int) -> None:
    """Draw `count` simple shapes, so that a textured shape alone is not evidence of an object."""
    height, width = layer.alpha.shape
    for _ in range(count):
        w, h = rng.uniform(0.15, 0.6, 2)
        outline = (
            lambda w=w, h=h: oval(0, 0, w, h),
            lambda w=w, h=h: box(-w, -h, w, h, rng.uniform(0, 0.2)),
            lambda w=w, h=h: polygon((-w, h), (rng.uniform(-w, w), -h), (w, h)),
            lambda w=w, h=h: blob(rng, 0, 0, w, h, 0.25),
            lambda w=w: rod(-w, 0, 1.5 * w, 0, 0.12, 0.08),
        )[int(rng.integers(5))]()
        relief = str(rng.choice(("flat", "ball", "tube", "bar")))
        scale, center = height * rng.uniform(0.12, 0.4), (rng.uniform(0, width), rng.uniform(0, height))
        pose = Pose.of(scale, center, rng.uniform(-3.2, 3.2))
        layer.add(Part(outline, random_texture(rng), relief), pose, light)


def _gradient(rng: np.random.Generator, x: Array, y: Array) -> Array:
    a = rng.uniform(0, 2 * np.pi)
    t = np.clip(0.5 + 0.5 * (np.cos(a) * (x - 1) + np.sin(a) * (y - 1)) + 0.5 * (noise(x * 0.1, y * 0.1) - 0.5), 0, 1)
    first = random_color(rng)
    second = distinct_color(rng, first, 0.15)
    return (first + (second - first) * t[..., None]).astype(np.float32)


def _clouds(rng: np.random.Generator, x: Array, y: Array) -> Array:
    first = random_color(rng)
    a, b = (
        Texture(first, distinct_color(rng, first), "cloud", rng.uniform(1, 3), 0.0, tuple(rng.random(2)))
        for _ in range(2)
    )
    return (a.at(x, y) + b.at(x, y)) / 2


def _wall_and_floor(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """A wall above a floor whose pattern recedes into the distance."""
    edge = rng.uniform(1.05, 1.65)
    depth = np.maximum(y - edge, 1e-3) + np.float32(0.12)
    floor = random_texture(rng, frequency=(0.5, 1.5)).at((x - 1) / depth * np.float32(0.6), 0.6 / depth + 0 * x)
    wall = random_texture(rng, frequency=(1.0, 4.0)).at(x, y)
    fade = np.clip(0.75 + 0.4 * (y - edge) / (2 - edge), 0.75, 1.15)[..., None]
    return np.where((y < edge)[..., None], wall, floor * fade)
