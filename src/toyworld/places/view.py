"""A view: a layer on which a place is painted, in coordinates where the picture is the unit square, y down."""

from __future__ import annotations

import numpy as np

from toyworld.brush import Layer, Part, Pose
from toyworld.outline import Points
from toyworld.texture import Array, Paint, noise
from toyworld.things import THINGS
from toyworld.things.wardrobe import Coat
from toyworld.weather import Weather, ground_colour


class View:
    """Where a place is painted: a layer of side x side, the weather, a horizon, the stream of the picture."""

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        self.rng = rng
        self.u = rng.uniform
        self.weather = Weather.random(rng)
        self.horizon = rng.uniform(0.3, 0.62)
        axis = (np.arange(side, dtype=np.float32) + 0.5) / side
        self.x, self.y = axis[None, :], axis[:, None]
        self.layer = Layer(side, side, np.zeros((side, side, 3), np.float32))
        self.pose = Pose(np.eye(2) * side, np.zeros(2))

    def sky(self) -> None:
        """Cover everything with sky."""
        self.layer.rgb[:] = np.clip(self.weather.sky(self.rng, self.x, self.y, self.horizon), 0, 1)

    def paint(self) -> Paint:
        """Draw a paint for ground, rock or growth."""
        first = ground_colour(self.rng)
        shift = self.u(0.6, 0.85) if self.rng.random() < 0.7 else self.u(1.15, 1.3)
        return Paint(first, np.clip(first * np.float32(shift), 0, 1), "cloud", 9.0, 0.0, self.offset())

    def offset(self) -> tuple[float, float]:
        """Draw a place in the noise."""
        return (float(self.rng.random()), float(self.rng.random()))

    def add(self, outline: Points, paint: Paint, relief: str = "flat", bevel: float = 0.25, seam: float = 0.0) -> None:
        """Lay a piece over the picture."""
        self.layer.add(Part(outline, paint, relief, 0.0, bevel=bevel), self.pose, self.weather.light, seam)

    def floor(self, near: Array, far: Array, contrast: float, stretch: float = 1.0) -> None:
        """Cover what lies below the horizon with ground that recedes: fine and pale afar, coarse and plain nearby."""
        depth = 0.08 / (np.maximum(self.y - self.horizon, 0) + 0.012)
        grain = noise((self.x - 0.5) * depth * 0.8 + 0.5, depth * stretch, self.offset())
        grain = 0.5 * grain + 0.5 * noise((self.x - 0.5) * depth * 3, depth * 3 * stretch, self.offset())
        t = np.clip((self.y - self.horizon) / (1 - self.horizon), 0, 1)[..., None]
        colour = (far + (near - far) * t**0.6) * (1 + np.float32(contrast) * (grain - 0.5))[..., None]
        self.cover(colour * self.weather.tint, np.broadcast_to(self.y > self.horizon, grain.shape))

    def cover(self, colour: Array, where: Array) -> None:
        """Lay colours (side, side, 3) over the picture where a mask (side, side), 0..1 or bool, says so."""
        weight = where.astype(np.float32)[..., None]
        self.layer.rgb += (np.clip(colour, 0, 1) - self.layer.rgb) * weight

    def thing(self, name: str, x: float, foot: float, height: float, distance: float = 0.0) -> None:
        """Stand a thing of a class of `THINGS`, `height` tall, with its foot at (x, foot)."""
        scale = height / 1.85
        coat = Coat.random(self.rng)
        pose = Pose.of(
            scale * self.pose.linear[0, 0],
            (x * self.pose.linear[0, 0], (foot - 0.88 * scale) * self.pose.linear[0, 0]),
            0.0,
            bool(self.rng.random() < 0.5),
        )
        for part in THINGS[name](self.rng, coat):
            seen = Part(part.outline, self.weather.far(part.paint, distance), part.relief, 0.0, part.angle, part.bevel)
            self.layer.add(seen, pose, self.weather.light)

    def ridge(self, level: float, height: float, rough: float, points: int = 40) -> Points:
        """Return a skyline closed at the bottom: fractal, `height` tall about `level`."""
        t = np.linspace(-0.05, 1.05, points)
        line = np.zeros(points)
        for octave in range(5):
            k, phase = 1.5 * 2**octave * self.u(0.7, 1.3), self.u(0, 6.3)
            line += np.sin(t * k * 2 * np.pi + phase) * rough**octave
        line = (line - line.min()) / max(np.ptp(line), 1e-6)
        top = np.stack([t, level - height * line], 1)
        return np.concatenate([top, [[1.05, 1.1], [-0.05, 1.1]]])
