"""Set `clips`: short films by a moving camera in which one or two things move by themselves, in the DAVIS layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toyworld.backdrop import backdrop
from toyworld.brush import OVERSAMPLE, Layer, Light, Part, Pose
from toyworld.camera import Camera, save
from toyworld.seeds import stream
from toyworld.texture import Array
from toyworld.things import THINGS
from toyworld.things.wardrobe import Coat

VERSION = 2
FRAMES = 12
MOVERS = ("aeroplane", "bird", "boat", "bus", "car", "fish")
_SPARE = 1.7


@dataclass(frozen=True)
class Frame:
    """A picture, the mask (H, W, bool) of what moves by itself, and the camera: the map from ground to fine pixels."""

    picture: Image.Image
    mask: NDArray[np.bool_]
    camera: Pose


@dataclass(frozen=True)
class Mover:
    """A thing on its way over the ground: parts and, at time t, its pose in ground coordinates."""

    parts: list[Part]
    scale: float
    middle: NDArray[np.float64]
    velocity: NDArray[np.float64]
    sway: tuple[float, float, float]
    spin: float
    mirror: bool

    def pose(self, t: float) -> Pose:
        """Return where the thing is at t frames from the middle of the clip."""
        amplitude, rate, phase = self.sway
        swing = np.array([0.0, amplitude * np.sin(rate * t + phase)])
        place = self.middle + self.velocity * t + swing
        return Pose.of(self.scale, (place[0], place[1]), self.spin * t, self.mirror)


def film(rng: np.random.Generator, size: int) -> list[Frame]:
    """Draw a clip of `FRAMES` frames, 16:9 with `size` rows."""
    height, width = size * OVERSAMPLE, round(size * 16 / 9) * OVERSAMPLE
    light = Light.random(rng)
    ground = _ground(rng, int(height * _SPARE), int(width * _SPARE), light)
    middle = np.array([width, height]) * _SPARE / 2
    movers = [_mover(rng, height, width, middle) for _ in range(1 + int(rng.random() < 0.4))]
    pan = rng.uniform(0.004, 0.02) * width * _direction(rng)
    zoom, roll = rng.uniform(-0.012, 0.012), rng.uniform(-0.008, 0.008)
    sensor = Camera.random(rng)
    # Grain that is another one in each frame is what video codecs throw away first.
    sensor = replace(sensor, grain=sensor.grain / 4)
    frames = []
    for step in range(FRAMES):
        t = step - (FRAMES - 1) / 2
        camera = Pose.of(float(np.exp(zoom * t)), (0, 0), roll * t)
        camera = Pose(camera.linear, np.array([width, height]) / 2 - camera.linear @ (middle + pan * t))
        scene = _seen(ground, camera, height, width)
        layer = Layer(height, width)
        for mover in movers:
            place = mover.pose(t)
            layer.add_all(mover.parts, Pose(camera.linear @ place.linear, camera(place.shift)), light)
        fine = layer.over(scene)
        cover = layer.cover.reshape(size, OVERSAMPLE, width // OVERSAMPLE, OVERSAMPLE).mean((1, 3))
        frames.append(Frame(sensor.take(fine, rng), cover > 0.5, camera))
    return frames


def _ground(rng: np.random.Generator, height: int, width: int, light: Light) -> Image.Image:
    """Draw what stands still: a backdrop with a few things that could move but do not."""
    layer = Layer(height, width, backdrop(rng, height, width, light))
    for _ in range(int(rng.integers(3, 7))):
        name = str(rng.choice(list(THINGS)))
        pose = Pose.of(height * rng.uniform(0.08, 0.16), (rng.uniform(0, width), rng.uniform(0, height)))
        layer.add_all(THINGS[name](rng, Coat.random(rng)), pose, light)
    return Image.fromarray((np.clip(layer.rgb, 0, 1) * 255 + 0.5).astype(np.uint8))


def _mover(rng: np.random.Generator, height: int, width: int, middle: NDArray[np.float64]) -> Mover:
    velocity = rng.uniform(0.015, 0.04) * height * 1.6 * _direction(rng) * (1.0, 0.6)
    name = str(rng.choice(MOVERS))
    return Mover(
        THINGS[name](rng, Coat.random(rng)),
        rng.uniform(0.22, 0.4) * height,
        middle + rng.uniform(-0.22, 0.22, 2) * (width, height),
        velocity,
        (rng.uniform(0, 0.03) * height, rng.uniform(0.3, 1.0), rng.uniform(0, 6.3)),
        rng.uniform(-0.02, 0.02),
        bool(velocity[0] < 0),
    )


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _seen(ground: Image.Image, camera: Pose, height: int, width: int) -> Array:
    """Return the ground as the camera sees it, (height, width, 3) float32 in 0..1."""
    back = np.linalg.inv(camera.linear)
    shift = -back @ camera.shift
    data = (*back[0].tolist(), float(shift[0]), *back[1].tolist(), float(shift[1]))
    seen = ground.transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    return np.asarray(seen, np.float32) / 255


def write(folder: Path, split: str, number: int, size: int, seed: int) -> None:
    """Write the frames and masks of clip `number`, named <split>-<number>."""
    name = f"{split}-{number:05d}"
    masks = folder / "Annotations" / "480p" / name
    masks.mkdir(parents=True)
    for step, frame in enumerate(film(stream(seed, "clips", split, number), size)):
        save(frame.picture, folder / "JPEGImages" / "480p" / name / f"{step:05d}.jpg")
        Image.fromarray(frame.mask.astype(np.uint8) * 255).save(masks / f"{step:05d}.png")


def lists(folder: Path, split: str, n: int) -> None:
    """Write folder/ImageSets/480p/<split>.txt: frame and mask of each line, as DAVIS 2016 has it."""
    place = folder / "ImageSets" / "480p"
    place.mkdir(parents=True)
    names = [f"480p/{split}-{number:05d}/{step:05d}" for number in range(n) for step in range(FRAMES)]
    (place / f"{split}.txt").write_text("".join(f"/JPEGImages/{x}.jpg /Annotations/{x}.png\n" for x in names))
