"""The canvas of a scene, in coordinates in which the image is the unit square, y down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from toyworld.layer import Layer, Part, Pose
from toyworld.objects import OBJECTS
from toyworld.outline import Points, join
from toyworld.scenes.atmosphere import Atmosphere
from toyworld.texture import Array, Texture, Theme, hsv, noise, random_color


class Scene:
    """A layer of side x side with an atmosphere, a horizon (0..1) and the image's random generator."""

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        self.rng, self.u, self.side = rng, rng.uniform, side
        self.air = Atmosphere.random(rng)
        self.horizon = rng.uniform(0.3, 0.62)
        axis = (np.arange(side, dtype=np.float32) + 0.5) / side
        self.x, self.y = axis[None, :], axis[:, None]
        self.layer = Layer(side, side, np.zeros((side, side, 3), np.float32))

    @property
    def below_horizon(self) -> NDArray[np.bool_]:
        """Mask (side, 1) of the rows below the horizon."""
        return self.y > self.horizon

    def add_sky(self) -> None:
        """Fill the layer with sky."""
        self.layer.rgb[:] = np.clip(self.air.sky(self.rng, self.x, self.y, self.horizon), 0, 1)

    def land_texture(self) -> Texture:
        """Draw a texture for soil, rock or plants: green, dry, red, snow, ash or any color."""
        u, kind = self.u, int(self.rng.integers(6))
        color = (
            lambda: hsv(u(0.2, 0.42), u(0.25, 0.75), u(0.25, 0.7)),
            lambda: hsv(u(0.09, 0.16), u(0.25, 0.65), u(0.5, 0.9)),
            lambda: hsv(u(-0.02, 0.07), u(0.35, 0.75), u(0.3, 0.75)),
            lambda: hsv(u(0.5, 0.65), u(0.02, 0.15), u(0.8, 1.0)),
            lambda: hsv(u(0, 1), u(0.0, 0.2), u(0.2, 0.55)),
            lambda: random_color(self.rng),
        )[kind]()
        factor = u(0.6, 0.85) if self.rng.random() < 0.7 else u(1.15, 1.3)
        return Texture(color, np.clip(color * np.float32(factor), 0, 1), "cloud", 9.0, 0.0, self.noise_offset())

    def noise_offset(self) -> tuple[float, float]:
        """Draw an offset for `noise`."""
        return (float(self.rng.random()), float(self.rng.random()))

    def add(
        self, outline: Points, texture: Texture, relief: str = "flat", bevel: float = 0.25, seam: float = 0.0
    ) -> None:
        """Draw a part over the image."""
        pose = Pose(np.eye(2) * self.side, np.zeros(2))
        self.layer.add(Part(outline, texture, relief, 0.0, bevel), pose, self.air.light, seam)

    def add_ground(self, near: Array, far: Array, contrast: float, stretch: float = 1.0) -> None:
        """Fill the area below the horizon with ground in perspective, from color `near` to color `far`."""
        depth = 0.08 / (np.maximum(self.y - self.horizon, 0) + 0.012)
        grain = noise((self.x - 0.5) * depth * 0.8 + 0.5, depth * stretch, self.noise_offset())
        grain = 0.5 * grain + 0.5 * noise((self.x - 0.5) * depth * 3, depth * 3 * stretch, self.noise_offset())
        t = np.clip((self.y - self.horizon) / (1 - self.horizon), 0, 1)[..., None]
        color = (far + (near - far) * t**0.6) * (1 + np.float32(contrast) * (grain - 0.5))[..., None]
        self.blend(color * self.air.light.color, np.broadcast_to(self.below_horizon, grain.shape))

    def blend(self, color: Array, alpha: Array) -> None:
        """Blend colors (side, side, 3) over the image with alpha (side, side), 0..1 or bool."""
        weight = alpha.astype(np.float32)[..., None]
        self.layer.rgb += (np.clip(color, 0, 1) - self.layer.rgb) * weight

    def add_object(self, name: str, x: float, foot: float, height: float, distance: float = 0.0) -> None:
        """Draw an object of a class of `OBJECTS`, `height` tall, with its lower edge at (x, foot)."""
        scale = height / 1.85
        theme = Theme.random(self.rng)
        center = (x * self.side, (foot - 0.88 * scale) * self.side)
        pose = Pose.of(scale * self.side, center, mirror=bool(self.rng.random() < 0.5))
        for part in OBJECTS[name](self.rng, theme):
            part = replace(part, texture=self.air.hazed(part.texture, distance), gloss=0.0)
            self.layer.add(part, pose, self.air.light)

    def skyline(self, level: float, height: float, roughness: float) -> Points:
        """Return a fractal skyline, closed below the image: `height` tall, its base at `level`."""
        t = np.linspace(-0.05, 1.05, 40)
        line = np.zeros(40)
        for octave in range(5):
            k, phase = 1.5 * 2**octave * self.u(0.7, 1.3), self.u(0, 6.3)
            line += np.sin(t * k * 2 * np.pi + phase) * roughness**octave
        line = (line - line.min()) / max(np.ptp(line), 1e-6)
        top = np.stack([t, level - height * line], 1)
        return join(top, [[1.05, 1.1], [-0.05, 1.1]])
