"""Subset `rgbd`: ray-traced furnished rooms with the z-depth of every pixel.

Depth is the distance along the optical axis at the pixel's center, in millimeters, 16 bit. It is 0 where it is
missing: at single pixels, at some edges and in patches, as with a structured-light sensor. The camera is NYUv2's: focal
length 0.81 image widths, principal point at the image center.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toyworld.layer import OVERSAMPLE
from toyworld.sensor import Sensor, save_jpeg
from toyworld.solids import Ball, Box, Solid
from toyworld.texture import Array, Texture, noise, plain, random_color, random_texture

FOCAL_LENGTH = 0.81  # in image widths


@dataclass(frozen=True)
class Room:
    """Solids (the room itself first), and position of the lamp, position and axes (rows) of the camera, in meters."""

    solids: list[Solid]
    lamp: Array
    eye: Array
    axes: Array

    def rays(self, height: int, width: int) -> Array:
        """Return a ray (3, height, width) through the center of each pixel, of length 1 along the optical axis."""
        x = (np.arange(width, dtype=np.float32)[None, :] + 0.5 - width / 2) / (FOCAL_LENGTH * width)
        y = (np.arange(height, dtype=np.float32)[:, None] + 0.5 - height / 2) / (FOCAL_LENGTH * width)
        right, down, forward = self.axes
        return np.stack([right[i] * x + down[i] * y + forward[i] for i in range(3)]).astype(np.float32)

    def cast(self, height: int, width: int) -> tuple[Array, NDArray[np.int16]]:
        """Return z-depth in meters and the index of the nearest solid, both (height, width)."""
        rays = self.rays(height, width)
        depth = self.solids[0].intersect(self.eye, rays).astype(np.float32)
        owner = np.zeros((height, width), np.int16)
        for k, solid in enumerate(self.solids[1:], 1):
            rows, columns = self._window(solid, height, width)
            distance = solid.intersect(self.eye, rays[:, rows, columns])
            nearer = distance < depth[rows, columns]
            depth[rows, columns][nearer] = distance[nearer]
            owner[rows, columns][nearer] = k
        return depth, owner

    def _window(self, solid: Solid, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and columns to which a solid projects."""
        seen = (solid.corners() - self.eye) @ self.axes.T
        if (seen[:, 2] < 0.05).any():
            return slice(0, height), slice(0, width)
        x = seen[:, 0] / seen[:, 2] * FOCAL_LENGTH * width + width / 2
        y = seen[:, 1] / seen[:, 2] * FOCAL_LENGTH * width + height / 2
        rows = np.clip([np.floor(y.min()), np.ceil(y.max()) + 1], 0, height).astype(int)
        columns = np.clip([np.floor(x.min()), np.ceil(x.max()) + 1], 0, width).astype(int)
        return slice(*rows), slice(*columns)

    def render(self, height: int, width: int) -> Array:
        """Return the image (height, width, 3) under a lamp, which casts shadows, and ambient light."""
        depth, owner = self.cast(height, width)
        points = (self.eye[:, None, None] + self.rays(height, width) * depth).reshape(3, -1)
        flat = owner.ravel()
        normal, color = np.empty((2, len(flat), 3), np.float32)
        for k in np.unique(flat):
            chosen = np.flatnonzero(flat == k)
            normal[chosen], color[chosen] = self.solids[k].surface(points[:, chosen].T)
        normal = np.ascontiguousarray(normal.T)
        to_lamp = self.lamp[:, None] - points
        square = (to_lamp * to_lamp).sum(0)
        facing = np.clip((normal * to_lamp).sum(0) / np.sqrt(square), 0, 1)
        lit = np.flatnonzero(facing > 0)
        start, way = points[:, lit] + normal[:, lit] * np.float32(0.01), to_lamp[:, lit]
        for solid in self.solids[1:]:
            free = solid.intersect(start, way) >= 1
            facing[lit[~free]] *= np.float32(0.15)
            lit, start, way = lit[free], start[:, free], way[:, free]
        light = 0.55 * (0.5 - 0.3 * normal[1]) + 1.5 * facing / (1 + 0.12 * square)
        return np.clip(color * light[:, None], 0, 1).astype(np.float32).reshape(height, width, 3)


def random_room(rng: np.random.Generator) -> Room:
    """Draw a room with furniture, seen from near one wall."""
    u = rng.uniform
    wide, high, deep = u(3.0, 6.0), u(2.3, 3.0), u(3.5, 7.5)
    wall = [random_texture(rng, frequency=(1.0, 3.5)) for _ in range(2)]
    walls = wall[0] if rng.random() < 0.6 else wall[1]
    ceiling, floor = plain(random_color(rng, (0.6, 1.0))), random_texture(rng, frequency=(0.8, 3.0))
    solids: list[Solid] = [
        _box((0, -high / 2, deep / 2), (wide, high, deep), 0, (walls, wall[0], ceiling, floor, walls, wall[1]), True)
    ]
    for _ in range(int(rng.integers(1, 4))):
        x, y, w, h = u(-0.4, 0.4) * wide, -u(1.2, 1.8), u(0.3, 1.3), u(0.4, 0.9)
        solids.append(_box((x, y, deep), (w, h, 0.06), 0, (random_texture(rng),)))
    for _ in range(int(rng.integers(2, 6))):
        x, z = u(-0.45, 0.45) * wide, u(1.6, deep - 0.5)
        solids += _furniture(rng, x, z)
    for _ in range(int(rng.integers(0, 4))):
        r = u(0.08, 0.35)
        y = -r if rng.random() < 0.7 else -u(1.0, 2.0)
        solids.append(Ball(np.array([u(-0.4, 0.4) * wide, y, u(1.6, deep - 0.5)], np.float32), r, random_texture(rng)))
    lamp = np.array([u(-0.3, 0.3) * wide, -high + 0.15, u(0.3, 0.8) * deep], np.float32)
    eye = np.array([u(-0.25, 0.25) * wide, -min(u(1.0, 1.7), high - 0.3), u(0.15, 0.6)], np.float32)
    yaw, pitch, roll = u(-0.35, 0.35), u(-0.05, 0.35), u(-0.05, 0.05)
    return Room(solids, lamp, eye, _axes(yaw, pitch, roll))


def _axes(yaw: float, pitch: float, roll: float) -> Array:
    """Return the camera's right, down and forward axes as rows; positive pitch looks down, y points down."""
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    yaw_matrix = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    pitch_matrix = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll_matrix = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return (roll_matrix @ pitch_matrix @ yaw_matrix).astype(np.float32)


def _box(
    center: tuple[float, float, float],
    sides: tuple[float, float, float],
    yaw: float,
    textures: tuple[Texture, ...],
    inside: bool = False,
) -> Box:
    return Box(np.array(center, np.float32), np.array(sides, np.float32) / 2, yaw, textures, inside)


def _furniture(rng: np.random.Generator, x: float, z: float) -> list[Solid]:
    """Return a table, a cupboard, a sofa or a stack of boxes at x, z."""
    u = rng.uniform
    yaw = u(-0.6, 0.6) if rng.random() < 0.6 else float(rng.choice([0.0, np.pi / 2]))
    main, other = (random_texture(rng, frequency=(1.5, 5.0)) for _ in range(2))
    c, s = np.cos(yaw), np.sin(yaw)

    def at(dx: float, y: float, dz: float, w: float, h: float, d: float, texture: Texture) -> Box:
        return _box((x + c * dx + s * dz, y, z - s * dx + c * dz), (w, h, d), yaw, (texture,))

    kind = int(rng.integers(4))
    if kind == 0:
        w, h, d = u(0.8, 1.6), u(0.45, 0.8), u(0.6, 0.9)
        legs = [
            at(i * (w / 2 - 0.06), -h / 2, j * (d / 2 - 0.06), 0.07, h, 0.07, other) for i in (-1, 1) for j in (-1, 1)
        ]
        toys: list[Solid] = [at(u(-0.3, 0.3) * w, -h - 0.12, 0, 0.2, 0.2, 0.2, random_texture(rng))]
        if rng.random() < 0.5:
            toys.append(Ball(np.array([x, -h - 0.14, z], np.float32), 0.12, random_texture(rng)))
        return [at(0, -h, 0, w, 0.05, d, main), *legs, *toys]
    if kind == 1:
        w, h, d = u(0.6, 1.4), u(0.9, 2.0), u(0.35, 0.6)
        boards = [at(0, -h * f, -d / 2, w * 1.02, 0.05, 0.06, other) for f in (0.33, 0.66, 1.0)]
        return [at(0, -h / 2, 0, w, h, d, main), *boards]
    if kind == 2:
        w, d = u(1.2, 2.0), u(0.7, 0.9)
        return [
            at(0, -0.2, 0, w, 0.4, d, main), at(0, -0.42, d / 2 - 0.1, w, 0.84, 0.2, main),
            at(-w / 2 + 0.08, -0.3, 0, 0.18, 0.6, d, other), at(w / 2 - 0.08, -0.3, 0, 0.18, 0.6, d, other),
        ]  # fmt: skip
    boxes: list[Solid] = []
    top = 0.0
    for _ in range(int(rng.integers(1, 4))):
        w = u(0.25, 0.6)
        boxes.append(at(u(-0.08, 0.08), -top - w / 2, u(-0.08, 0.08), w, w, w, random_texture(rng)))
        top += w
    return boxes


def to_millimeters(depth: Array, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return depth (H, W, meters) in millimeters, 0 at single pixels, at some edges and in a few patches."""
    height, width = depth.shape
    step = np.abs(np.diff(depth, axis=1, append=depth[:, -1:])) > 0.25
    missing = (rng.random(depth.shape) < 0.002) | (step & (rng.random(depth.shape) < 0.2))
    x = np.linspace(0, width / height, width, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    for _ in range(int(rng.integers(0, 4))):
        far = np.hypot(x - rng.uniform(0, width / height), (y - rng.uniform(0, 1)) * rng.uniform(0.5, 2))
        missing |= far < rng.uniform(0.01, 0.05) * (0.5 + noise(x, y, (rng.random(), rng.random())))
    return np.where(missing, 0, np.clip(np.rint(depth * 1000), 1, 65535)).astype(np.uint16)


def write(folder: Path, split: str, number: int, size: int, rng: np.random.Generator) -> None:
    """Write folder/<split>/rgb/<number>.jpg and folder/<split>/depth/<number>.png, 4:3 with `size` rows."""
    room, height, width = random_room(rng), size, size * 4 // 3
    fine = room.render(height * OVERSAMPLE, width * OVERSAMPLE)
    save_jpeg(Sensor.random(rng).capture(fine, rng), folder / split / "rgb" / f"{number:05d}.jpg")
    depth = to_millimeters(room.cast(height, width)[0], rng)
    (folder / split / "depth").mkdir(parents=True, exist_ok=True)
    Image.fromarray(depth).save(folder / split / "depth" / f"{number:05d}.png")


def write_lists(folder: Path, split: str, num_images: int) -> None:
    """Write folder/<split>.txt: one line with image and depth per image, relative to the root."""
    lines = (f"{split}/rgb/{number:05d}.jpg {split}/depth/{number:05d}.png\n" for number in range(num_images))
    (folder / f"{split}.txt").write_text("".join(lines))
