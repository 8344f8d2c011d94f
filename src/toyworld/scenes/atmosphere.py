"""Atmosphere of a scene: sky, light and haze, drawn independently of the scene's class."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from toyworld.layer import Light
from toyworld.texture import Array, Texture, hsv, noise, plain, random_color, soft_step


@dataclass(frozen=True)
class Atmosphere:
    """Sky colors (RGB 0..1) at the zenith and at the horizon, the light, haze and cloud cover (0..1)."""

    zenith: Array
    horizon: Array
    light: Light
    haze: float
    clouds: float
    night: bool

    @staticmethod
    def random(rng: np.random.Generator) -> Atmosphere:
        """Draw one of day, overcast, dawn or dusk, night, and arbitrary colors (a color filter)."""
        kind = int(rng.integers(5))
        u = rng.uniform
        color: Array
        if kind == 0:
            zenith, horizon = hsv(u(0.53, 0.64), u(0.4, 0.85), u(0.6, 0.95)), hsv(u(0.5, 0.6), u(0.05, 0.3), u(0.85, 1))
            color = np.ones(3)
        elif kind == 1:
            gray = u(0.45, 0.85)
            zenith, horizon = hsv(u(0, 1), 0.06, gray * 0.85), hsv(u(0, 1), 0.05, gray)
            color = np.full(3, u(0.65, 0.9))
        elif kind == 2:
            zenith, horizon = hsv(u(0.55, 0.85), u(0.3, 0.7), u(0.3, 0.6)), hsv(u(-0.03, 0.13), u(0.5, 0.9), u(0.8, 1))
            color = np.array([1.0, u(0.65, 0.85), u(0.5, 0.75)])
        elif kind == 3:
            zenith = hsv(u(0.58, 0.75), u(0.5, 0.9), u(0.05, 0.15))
            horizon = hsv(u(0.5, 0.75), u(0.3, 0.7), u(0.15, 0.35))
            color = np.array([u(0.3, 0.45), u(0.35, 0.5), u(0.5, 0.7)])
        else:
            zenith, horizon = random_color(rng), random_color(rng, (0.5, 1.0))
            color = random_color(rng, (0.6, 1.0)) * 0.6 + 0.4
        light = replace(Light.random(rng), color=color.astype(np.float32))
        return Atmosphere(zenith, horizon, light, float(rng.beta(1.2, 3)), float(rng.random()), kind == 3)

    def sky(self, rng: np.random.Generator, x: Array, y: Array, horizon: float) -> Array:
        """Return the sky's colors at x, y (0..1 in the image), perhaps with sun or moon, stars and clouds."""
        t = np.clip(y / max(horizon, 0.05), 0, 1)[..., None]
        sky = self.zenith + (self.horizon - self.zenith) * t ** np.float32(rng.uniform(0.7, 2))
        sky = np.repeat(sky, x.shape[1], axis=1)
        if rng.random() < 0.5:
            sx, sy, r = rng.uniform(0, 1), rng.uniform(0.05, max(0.1, horizon * 0.9)), rng.uniform(0.025, 0.06)
            distance = np.hypot(x - sx, y - sy)
            disc = soft_step(r - distance, 0.006) + 0.45 * np.exp(-distance / (2.5 * r))
            sky += disc[..., None] * (np.array([1.0, 0.95, 0.8], np.float32) - 0.5 * sky)
        if self.night:
            for _ in range(int(rng.integers(5, 40))):
                column, row = int(rng.integers(sky.shape[1])), int(rng.integers(max(1, int(horizon * sky.shape[0]))))
                sky[row : row + 2, column : column + 2] += np.float32(rng.uniform(0.2, 0.8))
        scale = 0.25 / (np.maximum(horizon - y, 0) + 0.25)
        field = noise(x * 0.3 * scale, y * 0.9 * scale, (rng.random(), rng.random()))
        field = 0.6 * field + 0.4 * noise(x * 0.9, y * 1.8, (rng.random(), rng.random()))
        cover = soft_step(field - (0.72 - 0.4 * self.clouds), 0.1)[..., None] * np.float32(rng.uniform(0.4, 0.95))
        sky += (self.horizon * np.float32(0.35) + self.light.color * np.float32(0.6) - sky) * cover
        return sky

    def hazed(self, texture: Texture, distance: float) -> Texture:
        """Return a texture at a distance (0 near, 1 at the horizon): it is blended with the color of the air."""
        k = np.float32(min(0.92, distance * (0.25 + 0.75 * self.haze)))
        air = self.horizon / np.maximum(self.light.color, 0.2)
        color, other = (c + (air - c) * k for c in (texture.color, texture.other))
        return replace(texture, color=color, other=other)

    def window(self, rng: np.random.Generator) -> Texture:
        """Return the texture of a window: lit at night, else dark or reflecting the sky."""
        if self.night and rng.random() < 0.6:
            return plain(np.array([1.0, 0.85, 0.5], np.float32) / np.maximum(self.light.color, 0.3))
        return plain(self.zenith * np.float32(rng.uniform(0.3, 0.9)))
