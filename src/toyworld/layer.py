"""Layers: parts (outline, texture, relief) are shaded under one light and drawn over one another.

A layer has `OVERSAMPLE` times the resolution of the image, and the edges of parts are drawn at twice that; averaging
anti-aliases the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from toyworld.outline import Points
from toyworld.texture import Array, Texture

OVERSAMPLE = 2


@dataclass(frozen=True)
class Part:
    """One piece of an object.

    `relief` is the curvature of its surface: "flat", "ball" (in both directions), "tube" (a vertical cylinder) or
    "bar" (a horizontal one), over the extent of the outline.
    """

    outline: Points
    texture: Texture
    relief: str = "flat"
    gloss: float = 0.1
    bevel: float = 1.0


class Parts(list[Part]):
    """The parts of one object, back to front, in coordinates of about -1..1 (y down)."""

    def add(
        self, outline: Points, texture: Texture, relief: str = "flat", gloss: float = 0.1, bevel: float = 1.0
    ) -> None:
        """Append a part in front of the others."""
        self.append(Part(outline, texture, relief, gloss, bevel))


@dataclass(frozen=True)
class Light:
    """Unit vector towards the light (x right, y down, z to the viewer), its color and the ambient fraction."""

    direction: tuple[float, float, float]
    color: Array
    ambient: float

    @staticmethod
    def random(rng: np.random.Generator) -> Light:
        """Draw a light from above, left or right, of a color near white."""
        side, height, front = rng.uniform(-1, 1), rng.uniform(0.35, 1.0), rng.uniform(0.5, 1.0)
        length = float(np.sqrt(side**2 + height**2 + front**2))
        color = np.float32(1.0) + rng.uniform(-0.08, 0.08, 3).astype(np.float32)
        return Light((side / length, -height / length, front / length), color, rng.uniform(0.35, 0.6))


@dataclass(frozen=True)
class Pose:
    """An affine map p -> linear @ p + shift from an object's own coordinates to pixels of a layer."""

    linear: NDArray[np.float64]
    shift: NDArray[np.float64]

    @staticmethod
    def of(scale: float, center: tuple[float, float], angle: float = 0.0, mirror: bool = False) -> Pose:
        """Return the pose that scales, mirrors, rotates (radians, clockwise) and translates, in this order."""
        c, s = np.cos(angle), np.sin(angle)
        flip = np.diag([-1.0 if mirror else 1.0, 1.0])
        return Pose(np.array([[c, -s], [s, c]]) @ flip * scale, np.array(center, np.float64))

    def __call__(self, points: Points) -> Points:
        """Map points (N, 2)."""
        return points @ self.linear.T + self.shift

    @property
    def scale(self) -> float:
        """Square root of the area of the image of the unit square."""
        return float(np.sqrt(abs(np.linalg.det(self.linear))))


class Layer:
    """Premultiplied RGB (H, W, 3) and alpha (H, W), float32 in 0..1; opaque where a background is given."""

    def __init__(self, height: int, width: int, background: Array | None = None) -> None:
        self.rgb = np.zeros((height, width, 3), np.float32) if background is None else background
        self.alpha = np.full((height, width), 0.0 if background is None else 1.0, np.float32)

    def add(self, part: Part, pose: Pose, light: Light, seam: float = 0.35) -> None:
        """Draw one part over the layer; `seam` (0..1) is how much it darkens the layer along its edge."""
        height, width = self.alpha.shape
        corners = pose(part.outline)
        blur = min(0.035 * pose.scale, 0.12 * float(np.ptp(corners, 0).min())) + 0.6
        pad = int(2 * blur) + 2
        x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int) - pad, 0)
        x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + pad, (width, height))
        if x1 <= x0 or y1 <= y0:
            return
        fine = Image.new("L", (2 * int(x1 - x0), 2 * int(y1 - y0)))
        ImageDraw.Draw(fine).polygon(((corners - (x0, y0)) * 2).ravel().tolist(), fill=255)
        sharp = fine.reduce(2)
        mask = np.asarray(sharp, np.float32) / 255
        soft = mask
        if part.bevel or seam:
            soft = np.asarray(sharp.filter(ImageFilter.BoxBlur(blur)), np.float32) / 255

        inverse = np.linalg.inv(pose.linear).astype(np.float32)
        px = np.arange(x0, x1, dtype=np.float32)[None, :] + np.float32(0.5 - pose.shift[0])
        py = np.arange(y0, y1, dtype=np.float32)[:, None] + np.float32(0.5 - pose.shift[1])
        x = inverse[0, 0] * px + inverse[0, 1] * py
        y = inverse[1, 0] * px + inverse[1, 1] * py
        diffuse, facing = _shade(part, pose, light, x, y, soft, blur)

        color = part.texture.at(x, y) * light.color
        color *= diffuse[..., None]
        if part.gloss > 0:
            color += (part.gloss * facing**16)[..., None]
        np.minimum(color, 1, out=color)
        color *= mask[..., None]
        rgb, alpha = self.rgb[y0:y1, x0:x1], self.alpha[y0:y1, x0:x1]
        keep = 1 - mask
        rgb *= (keep * (1 - seam * soft) if seam else keep)[..., None]
        rgb += color
        alpha *= keep
        alpha += mask

    def add_all(self, parts: Iterable[Part], pose: Pose, light: Light) -> None:
        """Draw parts, the first at the back."""
        for part in parts:
            self.add(part, pose, light)

    def over(self, background: Array) -> Array:
        """Composite this layer over an opaque image (H, W, 3)."""
        return self.rgb + background * (1 - self.alpha)[..., None]

    def shadow(self, light: Light, length: float, strength: float) -> Array:
        """Return the factor (H, W, 1) by which this layer's shadow, `length` pixels long, darkens a background."""
        small = Image.fromarray((self.alpha * 255).astype(np.uint8)).reduce(2)
        small = small.filter(ImageFilter.GaussianBlur(max(float(length) / 6, 0.8)))
        dx, dy = -light.direction[0] * length / 2, -light.direction[1] * length / 2
        moved = small.transform(small.size, Image.Transform.AFFINE, (1, 0, -dx, 0, 1, -dy))
        height, width = self.alpha.shape
        cast = np.asarray(moved.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
        return (1 - np.float32(strength) * cast)[..., None]

    def mask(self) -> NDArray[np.bool_]:
        """Return the image's pixels that the layer covers by more than half, (H, W) / OVERSAMPLE."""
        height, width = self.alpha.shape
        blocks = self.alpha.reshape(height // OVERSAMPLE, OVERSAMPLE, width // OVERSAMPLE, OVERSAMPLE)
        return np.asarray(blocks.mean((1, 3)) > 0.5)


def _shade(part: Part, pose: Pose, light: Light, x: Array, y: Array, soft: Array, blur: float) -> tuple[Array, Array]:
    """Return diffuse factor and cosine to the light, both (h, w), of a curved and beveled surface."""
    strength = np.float32(-0.55 * part.bevel * blur)
    nx, ny = np.zeros((2, *soft.shape), np.float32)
    nz: Array | np.float32 = np.float32(1)
    if part.bevel:
        np.subtract(soft[:, 2:], soft[:, :-2], out=nx[:, 1:-1])
        np.subtract(soft[2:], soft[:-2], out=ny[1:-1])
        nx *= strength
        ny *= strength
    if part.relief != "flat":
        low, high = part.outline.min(0), part.outline.max(0)
        middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-6)
        u = (x - np.float32(middle[0])) / np.float32(half[0]) * np.float32(0.9 if part.relief != "bar" else 0.0)
        v = (y - np.float32(middle[1])) / np.float32(half[1]) * np.float32(0.9 if part.relief != "tube" else 0.0)
        nz = np.sqrt(np.clip(1 - u * u - v * v, 0.05, 1))
        rotation = (pose.linear / pose.scale).astype(np.float32)
        nx, ny = nx + rotation[0, 0] * u + rotation[0, 1] * v, ny + rotation[1, 0] * u + rotation[1, 1] * v
    lx, ly, lz = (np.float32(value) for value in light.direction)
    facing = np.clip((nx * lx + ny * ly + nz * lz) / np.sqrt(nx * nx + ny * ny + nz * nz), 0, 1)
    ambient = np.float32(light.ambient)
    return ambient + (np.float32(1.35) - ambient) * facing, facing
