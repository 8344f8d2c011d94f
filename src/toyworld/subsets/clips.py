"""Subset `clips`: video clips of a moving camera and one or two moving objects, in the layout of DAVIS 2016."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toyworld.background import random_background
from toyworld.layer import OVERSAMPLE, Layer, Light, Part, Pose
from toyworld.objects import OBJECTS
from toyworld.sensor import Sensor, save_jpeg, to_image
from toyworld.texture import Array, Theme

NUM_FRAMES = 12
MOVING_CLASSES = ("aeroplane", "bird", "boat", "bus", "car", "fish")
_MARGIN = 1.7  # size of the background in sizes of a frame


@dataclass(frozen=True)
class Frame:
    """An image, the mask (H, W, bool) of the moving objects, and the camera: background pixels -> layer pixels."""

    image: Image.Image
    mask: NDArray[np.bool_]
    camera: Pose


@dataclass(frozen=True)
class MovingObject:
    """An object and its motion over the background, in pixels and frames; `sway` is amplitude, rate and phase."""

    parts: list[Part]
    scale: float
    center: NDArray[np.float64]
    velocity: NDArray[np.float64]
    sway: tuple[float, float, float]
    spin: float
    mirror: bool

    def pose(self, t: float) -> Pose:
        """Return the pose in background coordinates at t frames from the middle of the clip."""
        amplitude, rate, phase = self.sway
        swing = np.array([0.0, amplitude * np.sin(rate * t + phase)])
        x, y = self.center + self.velocity * t + swing
        return Pose.of(self.scale, (x, y), self.spin * t, self.mirror)


def render_clip(rng: np.random.Generator, size: int) -> list[Frame]:
    """Render a clip of `NUM_FRAMES` frames, 16:9 with `size` rows."""
    height, width = size * OVERSAMPLE, round(size * 16 / 9) * OVERSAMPLE
    light = Light.random(rng)
    background = _render_background(rng, int(height * _MARGIN), int(width * _MARGIN), light)
    middle = np.array([width, height]) * _MARGIN / 2
    objects = [_random_object(rng, height, width, middle) for _ in range(1 + int(rng.random() < 0.4))]
    pan = rng.uniform(0.004, 0.02) * width * _random_direction(rng)
    zoom, roll = rng.uniform(-0.012, 0.012), rng.uniform(-0.008, 0.008)
    sensor = Sensor.random(rng)
    # Less noise than in the other subsets: video codecs remove the noise that differs between frames first.
    sensor = replace(sensor, noise=sensor.noise / 4)
    frames = []
    for step in range(NUM_FRAMES):
        t = step - (NUM_FRAMES - 1) / 2
        camera = Pose.of(float(np.exp(zoom * t)), (0, 0), roll * t)
        camera = Pose(camera.linear, np.array([width, height]) / 2 - camera.linear @ (middle + pan * t))
        layer = Layer(height, width)
        for item in objects:
            pose = item.pose(t)
            layer.add_all(item.parts, Pose(camera.linear @ pose.linear, camera(pose.shift)), light)
        fine = layer.over(_crop(background, camera, height, width))
        frames.append(Frame(sensor.capture(fine, rng), layer.mask(), camera))
    return frames


def _render_background(rng: np.random.Generator, height: int, width: int, light: Light) -> Image.Image:
    """Render a background with a few static objects."""
    layer = Layer(height, width, random_background(rng, height, width, light))
    for _ in range(int(rng.integers(3, 7))):
        name = str(rng.choice(list(OBJECTS)))
        pose = Pose.of(height * rng.uniform(0.08, 0.16), (rng.uniform(0, width), rng.uniform(0, height)))
        layer.add_all(OBJECTS[name](rng, Theme.random(rng)), pose, light)
    return to_image(layer.rgb)


def _random_object(rng: np.random.Generator, height: int, width: int, middle: NDArray[np.float64]) -> MovingObject:
    velocity = rng.uniform(0.015, 0.04) * height * 1.6 * _random_direction(rng) * (1.0, 0.6)
    name = str(rng.choice(MOVING_CLASSES))
    return MovingObject(
        OBJECTS[name](rng, Theme.random(rng)),
        rng.uniform(0.22, 0.4) * height,
        middle + rng.uniform(-0.22, 0.22, 2) * (width, height),
        velocity,
        (rng.uniform(0, 0.03) * height, rng.uniform(0.3, 1.0), rng.uniform(0, 6.3)),
        rng.uniform(-0.02, 0.02),
        bool(velocity[0] < 0),
    )


def _random_direction(rng: np.random.Generator) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _crop(background: Image.Image, camera: Pose, height: int, width: int) -> Array:
    """Return the background as seen by the camera, (height, width, 3) float32 in 0..1."""
    inverse = np.linalg.inv(camera.linear)
    shift = -inverse @ camera.shift
    data = (*inverse[0].tolist(), float(shift[0]), *inverse[1].tolist(), float(shift[1]))
    crop = background.transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    return np.asarray(crop, np.float32) / 255


def write(folder: Path, split: str, number: int, size: int, rng: np.random.Generator) -> None:
    """Write the frames and masks of clip `number`, named <split>-<number>."""
    name = f"{split}-{number:05d}"
    masks = folder / "Annotations" / "480p" / name
    masks.mkdir(parents=True)
    for step, frame in enumerate(render_clip(rng, size)):
        save_jpeg(frame.image, folder / "JPEGImages" / "480p" / name / f"{step:05d}.jpg")
        Image.fromarray(frame.mask.astype(np.uint8) * 255).save(masks / f"{step:05d}.png")


def write_lists(folder: Path, split: str, num_clips: int) -> None:
    """Write folder/ImageSets/480p/<split>.txt: one line with frame and mask per frame, as in DAVIS 2016."""
    lists = folder / "ImageSets" / "480p"
    lists.mkdir(parents=True)
    names = [f"480p/{split}-{number:05d}/{step:05d}" for number in range(num_clips) for step in range(NUM_FRAMES)]
    (lists / f"{split}.txt").write_text("".join(f"/JPEGImages/{x}.jpg /Annotations/{x}.png\n" for x in names))
