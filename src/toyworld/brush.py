"""The brush: parts (outline, paint, relief) are lit from one direction and laid over one another on a layer.

A layer is drawn at `OVERSAMPLE` times the size of the picture and averaged down, and part edges are drawn
twice as fine again, so that pictures come out without steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from toyworld.outline import Points
from toyworld.texture import Array, Paint

OVERSAMPLE = 2
RELIEFS = ("flat", "ball", "tube", "bar")


@dataclass(frozen=True)
class Part:
    """One piece of a thing.

    `relief` says how its surface bends: "flat", "ball" (round both ways), "tube" (a standing cylinder) or "bar"
    (a lying one), measured over the outline's extent in a frame turned by `angle`.
    """

    outline: Points
    paint: Paint
    relief: str = "flat"
    gloss: float = 0.1
    angle: float = 0.0
    bevel: float = 1.0


@dataclass(frozen=True)
class Light:
    """Where the light comes from (unit vector; x right, y down, z to the viewer), its colour and the ambient share."""

    direction: tuple[float, float, float]
    colour: Array
    ambient: float

    @staticmethod
    def random(rng: np.random.Generator) -> Light:
        """Draw a light from above, left or right, white to a little coloured."""
        side, height, front = rng.uniform(-1, 1), rng.uniform(0.35, 1.0), rng.uniform(0.5, 1.0)
        length = float(np.sqrt(side**2 + height**2 + front**2))
        colour = np.float32(1.0) + rng.uniform(-0.08, 0.08, 3).astype(np.float32)
        return Light((side / length, -height / length, front / length), colour, rng.uniform(0.35, 0.6))


@dataclass(frozen=True)
class Pose:
    """An affine map p -> linear @ p + shift from a thing's own coordinates (about -1..1) to pixels of a layer."""

    linear: NDArray[np.float64]
    shift: NDArray[np.float64]

    @staticmethod
    def of(scale: float, centre: tuple[float, float], tilt: float = 0.0, mirror: bool = False) -> Pose:
        """Return the pose that scales, mirrors, tilts (radians, clockwise) and places, in this order."""
        c, s = np.cos(tilt), np.sin(tilt)
        flip = np.diag([-1.0 if mirror else 1.0, 1.0])
        return Pose(np.array([[c, -s], [s, c]]) @ flip * scale, np.array(centre, np.float64))

    def __call__(self, points: Points) -> Points:
        """Return where points (N, 2) come to lie."""
        return points @ self.linear.T + self.shift


class Layer:
    """Premultiplied RGB (H, W, 3) and coverage (H, W), float32 in 0..1."""

    def __init__(self, height: int, width: int, ground: Array | None = None) -> None:
        self.rgb = np.zeros((height, width, 3), np.float32) if ground is None else ground
        self.cover = np.full((height, width), 0.0 if ground is None else 1.0, np.float32)

    def add(self, part: Part, pose: Pose, light: Light, seam: float = 0.35) -> None:
        """Lay one part over what is there; `seam` is how much it darkens its surroundings inside the thing."""
        height, width = self.cover.shape
        corners = pose(part.outline)
        scale = float(np.sqrt(abs(np.linalg.det(pose.linear))))
        blur = min(0.035 * scale, 0.12 * float(np.ptp(corners, 0).min())) + 0.6
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
        shade, shine = _shade(part, pose, light, x, y, soft, blur)

        colour = part.paint.at(x, y) * light.colour
        colour *= shade[..., None]
        if part.gloss > 0:
            colour += (part.gloss * shine)[..., None]
        np.minimum(colour, 1, out=colour)
        colour *= mask[..., None]
        rgb, cover = self.rgb[y0:y1, x0:x1], self.cover[y0:y1, x0:x1]
        keep = 1 - mask
        rgb *= (keep * (1 - seam * soft) if seam else keep)[..., None]
        rgb += colour
        cover *= keep
        cover += mask

    def add_all(self, parts: Iterable[Part], pose: Pose, light: Light, seam: float = 0.35) -> None:
        """Lay parts over one another, the first at the back."""
        for part in parts:
            self.add(part, pose, light, seam)

    def over(self, ground: Array) -> Array:
        """Return this layer over an opaque picture (H, W, 3)."""
        return self.rgb + ground * (1 - self.cover)[..., None]

    def shadow(self, light: Light, reach: float, strength: float) -> Array:
        """Return a factor (H, W) that darkens a ground behind this layer; `reach` is how far it falls, in pixels."""
        small = Image.fromarray((self.cover * 255).astype(np.uint8)).reduce(2)
        small = small.filter(ImageFilter.GaussianBlur(max(float(reach) / 6, 0.8)))
        dx, dy = -light.direction[0] * reach / 2, -light.direction[1] * reach / 2
        moved = small.transform(small.size, Image.Transform.AFFINE, (1, 0, -dx, 0, 1, -dy))
        height, width = self.cover.shape
        cast = np.asarray(moved.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
        return 1 - np.float32(strength) * cast


def _shade(part: Part, pose: Pose, light: Light, x: Array, y: Array, soft: Array, blur: float) -> tuple[Array, Array]:
    """Return diffuse factor and highlight, both (h, w), of a bent and bevelled surface."""
    strength = np.float32(-0.55 * part.bevel * blur)
    nx, ny = np.zeros((2, *soft.shape), np.float32)
    nz: Array | np.float32 = np.float32(1)
    if part.bevel:
        np.subtract(soft[:, 2:], soft[:, :-2], out=nx[:, 1:-1])
        np.subtract(soft[2:], soft[:-2], out=ny[1:-1])
        nx *= strength
        ny *= strength
    if part.relief != "flat":
        c, s = np.cos(part.angle), np.sin(part.angle)
        frame = part.outline @ np.array([[c, -s], [s, c]])
        low, high = frame.min(0), frame.max(0)
        middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-6)
        u = ((np.float32(c) * x + np.float32(s) * y) - np.float32(middle[0])) / np.float32(half[0])
        v = ((np.float32(c) * y - np.float32(s) * x) - np.float32(middle[1])) / np.float32(half[1])
        u = u * np.float32(0.9 if part.relief in ("ball", "tube") else 0.0)
        v = v * np.float32(0.9 if part.relief in ("ball", "bar") else 0.0)
        nz = np.sqrt(np.clip(1 - u * u - v * v, 0.05, 1))
        a, b = np.float32(c) * u - np.float32(s) * v, np.float32(s) * u + np.float32(c) * v
        turn = (pose.linear / np.sqrt(abs(np.linalg.det(pose.linear)))).astype(np.float32)
        nx, ny = nx + turn[0, 0] * a + turn[0, 1] * b, ny + turn[1, 0] * a + turn[1, 1] * b
    lx, ly, lz = (np.float32(value) for value in light.direction)
    length = np.sqrt(nx * nx + ny * ny + nz * nz)
    facing = np.clip((nx * lx + ny * ly + nz * lz) / length, 0, 1)
    ambient = np.float32(light.ambient)
    shine = facing**16 if part.gloss > 0 else facing
    return ambient + (np.float32(1.35) - ambient) * facing, shine
