"""Weather and hour: the sky, the light and the tint that any place may have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toyworld.brush import Light
from toyworld.texture import Array, Paint, hsv, noise, plain, random_colour, soft_step


@dataclass(frozen=True)
class Weather:
    """Colours (RGB 0..1) of the sky above and at the horizon, light, haze (0..1), brightness of the land."""

    zenith: Array
    horizon: Array
    light: Light
    haze: float
    tint: Array
    clouds: float
    night: bool

    @staticmethod
    def random(rng: np.random.Generator) -> Weather:
        """Draw one of day, overcast, dawn or dusk, night, and something odd (a filter before the lens)."""
        kind = int(rng.integers(5))
        u = rng.uniform
        tint: Array
        if kind == 0:
            zenith, horizon, tint = (
                hsv(u(0.53, 0.64), u(0.4, 0.85), u(0.6, 0.95)),
                hsv(u(0.5, 0.6), u(0.05, 0.3), u(0.85, 1)),
                np.ones(3),
            )
        elif kind == 1:
            grey = u(0.45, 0.85)
            zenith, horizon, tint = hsv(u(0, 1), 0.06, grey * 0.85), hsv(u(0, 1), 0.05, grey), np.full(3, u(0.65, 0.9))
        elif kind == 2:
            zenith, horizon = hsv(u(0.55, 0.85), u(0.3, 0.7), u(0.3, 0.6)), hsv(u(-0.03, 0.13), u(0.5, 0.9), u(0.8, 1))
            tint = np.array([1.0, u(0.65, 0.85), u(0.5, 0.75)])
        elif kind == 3:
            zenith, horizon = (
                hsv(u(0.58, 0.75), u(0.5, 0.9), u(0.05, 0.15)),
                hsv(u(0.5, 0.75), u(0.3, 0.7), u(0.15, 0.35)),
            )
            tint = np.array([u(0.3, 0.45), u(0.35, 0.5), u(0.5, 0.7)])
        else:
            zenith, horizon, tint = (
                random_colour(rng),
                random_colour(rng, (0.5, 1.0)),
                random_colour(rng, (0.6, 1.0)) * 0.6 + 0.4,
            )
        light = Light.random(rng)
        light = Light(light.direction, tint.astype(np.float32), light.ambient)
        return Weather(
            zenith, horizon, light, float(rng.beta(1.2, 3)), tint.astype(np.float32), float(rng.random()), kind == 3
        )

    def sky(self, rng: np.random.Generator, x: Array, y: Array, horizon: float) -> Array:
        """Return the sky's colours at x, y (pictures of height 1); a sun, a moon, stars, clouds may stand in it."""
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
        away = 0.25 / (np.maximum(horizon - y, 0) + 0.25)
        field = noise(x * 0.3 * away, y * 0.9 * away, (rng.random(), rng.random()))
        field = 0.6 * field + 0.4 * noise(x * 0.9, y * 1.8, (rng.random(), rng.random()))
        cover = soft_step(field - (0.72 - 0.4 * self.clouds), 0.1)[..., None] * np.float32(rng.uniform(0.4, 0.95))
        sky += (self.horizon * np.float32(0.35) + self.tint * np.float32(0.6) - sky) * cover
        return sky

    def far(self, paint: Paint, distance: float) -> Paint:
        """Return a paint seen from afar (0 near, 1 at the horizon): it takes on the colour of the air."""
        k = np.float32(min(0.92, distance * (0.25 + 0.75 * self.haze)))
        air = self.horizon / np.maximum(self.tint, 0.2)
        mix = [c + (air - c) * k for c in (paint.colour, paint.other)]
        return Paint(mix[0], mix[1], paint.pattern, paint.frequency, paint.angle, paint.phase)

    def glow(self, rng: np.random.Generator) -> Paint:
        """Return the paint of a window: lit at night, else dark or mirroring the sky."""
        if self.night and rng.random() < 0.6:
            return plain(np.array([1.0, 0.85, 0.5], np.float32) / np.maximum(self.tint, 0.3))
        return plain(self.zenith * np.float32(rng.uniform(0.3, 0.9)))


def ground_colour(rng: np.random.Generator) -> Array:
    """Draw a colour that ground or growth of any kind may have: green, dry, red, snow, ash."""
    u = rng.uniform
    kind = int(rng.integers(6))
    return (
        lambda: hsv(u(0.2, 0.42), u(0.25, 0.75), u(0.25, 0.7)),
        lambda: hsv(u(0.09, 0.16), u(0.25, 0.65), u(0.5, 0.9)),
        lambda: hsv(u(-0.02, 0.07), u(0.35, 0.75), u(0.3, 0.75)),
        lambda: hsv(u(0.5, 0.65), u(0.02, 0.15), u(0.8, 1.0)),
        lambda: hsv(u(0, 1), u(0.0, 0.2), u(0.2, 0.55)),
        lambda: random_colour(rng),
    )[kind]()
