"""Surface patterns: a colour for every point of a plane, as a function of two colours and a few numbers."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

PATTERNS = ("plain", "stripes", "checks", "dots", "cloud", "wood", "speckle", "brick", "scales")
_TILE = 512


@lru_cache(maxsize=1)
def noise_tile() -> Array:
    """Return one (512, 512) float32 fractal noise picture in 0..1 that repeats without a seam."""
    rng = np.random.default_rng(20180601)
    k = np.fft.fftfreq(_TILE, 1 / _TILE)
    radius = np.hypot(k[:, None], k[None, :])
    radius[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.standard_normal((_TILE, _TILE))) * np.maximum(radius, 4.0) ** -1.6
    field = np.fft.ifft2(spectrum).real
    ranks = (field - field.mean()) / (field.std() * 4) + 0.5
    return np.clip(ranks, 0, 1).astype(np.float32)


def noise(x: Array, y: Array, offset: tuple[float, float] = (0.0, 0.0)) -> Array:
    """Look up fractal noise (0..1) at x, y, broadcast against each other; its largest features are ~ 1/8 wide."""
    column = ((x + offset[0]) * _TILE).astype(np.int32) % _TILE
    row = ((y + offset[1]) * _TILE).astype(np.int32) % _TILE
    return noise_tile()[row, column]


def soft_step(value: Array, width: float) -> Array:
    """Map value < -width to 0 and > width to 1 with a straight ramp between."""
    return np.clip(value / (2 * width) + 0.5, 0, 1)


@dataclass(frozen=True)
class Paint:
    """A pattern between two RGB colours (0..1); `frequency` is in periods per unit of the painted plane."""

    colour: Array
    other: Array
    pattern: str = "plain"
    frequency: float = 3.0
    angle: float = 0.0
    phase: tuple[float, float] = (0.0, 0.0)

    def at(self, x: Array, y: Array) -> Array:
        """Return the colours, shape broadcast(x, y) + (3,), at the points x, y."""
        weight = self.weight(x, y)[..., None]
        return self.colour + (self.other - self.colour) * weight

    def weight(self, x: Array, y: Array) -> Array:
        """Return how much of the second colour (0..1) lies at each point."""
        grain = noise(x * 0.37, y * 0.37, self.phase)
        if self.pattern == "plain":
            return 0.35 * grain
        c, s = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        f = np.float32(self.frequency)
        u = (c * x + s * y) * f + np.float32(self.phase[0])
        v = (c * y - s * x) * f + np.float32(self.phase[1])
        if self.pattern == "stripes":
            hard = soft_step(np.abs(u % 1 - 0.5) - 0.25, 0.07)
        elif self.pattern == "checks":
            hard = soft_step((np.abs(u % 1 - 0.5) - 0.25) * (np.abs(v % 1 - 0.5) - 0.25), 0.012)
        elif self.pattern == "dots":
            hard = soft_step(0.32 - np.hypot(u % 1 - 0.5, v % 1 - 0.5), 0.06)
        elif self.pattern == "cloud":
            hard = soft_step(noise(u * 0.06, v * 0.06) - 0.5, 0.22)
        elif self.pattern == "wood":
            rings = v * 0.8 + 2.5 * noise(u * 0.02, v * 0.06)
            hard = 0.75 * np.abs(rings % 1 * 2 - 1)
        elif self.pattern == "speckle":
            hard = soft_step(noise(u * 0.22, v * 0.22) - 0.56, 0.05)
        elif self.pattern == "brick":
            row = np.floor(v)
            joint = np.maximum(np.abs((u * 0.5 + 0.5 * (row % 2)) % 1 - 0.5) * 2 - 0.1, np.abs(v % 1 - 0.5))
            hard = soft_step(joint - 0.41, 0.05)
        elif self.pattern == "scales":
            row = np.floor(v)
            hard = soft_step(np.hypot((u + 0.5 * (row % 2)) % 1 - 0.5, v % 1) - 0.52, 0.2)
        else:
            raise ValueError(f"texture: no pattern is called {self.pattern!r}; choose one of {PATTERNS}")
        return 0.85 * hard + 0.15 * grain

    def darker(self, factor: float) -> Paint:
        """Return the same pattern with both colours multiplied by `factor`."""
        f = np.float32(factor)
        return replace(self, colour=np.clip(self.colour * f, 0, 1), other=np.clip(self.other * f, 0, 1))


def hsv(hue: float, saturation: float, value: float) -> Array:
    """Return an RGB colour (3,) in 0..1."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def random_colour(rng: np.random.Generator, value: tuple[float, float] = (0.3, 0.95)) -> Array:
    """Draw a colour, from grey to strong; warm and blue hues come more often than green and violet ones."""
    hue = (rng.normal(0.08, 0.05), rng.normal(0.59, 0.06), rng.random())[int(rng.integers(3))]
    return hsv(hue, float(rng.beta(1.5, 2.0)), rng.uniform(*value))


def related(rng: np.random.Generator, colour: Array, least: float = 0.28) -> Array:
    """Draw a second colour that stands off from `colour` by at least `least` (root mean square over RGB)."""
    other = random_colour(rng)
    while np.sqrt(np.mean((other - colour) ** 2)) < least:
        other = random_colour(rng, (0.1, 1.0))
    return other


def random_paint(
    rng: np.random.Generator,
    colour: Array | None = None,
    patterns: tuple[str, ...] = PATTERNS,
    frequency: tuple[float, float] = (2.5, 6.0),
) -> Paint:
    """Draw a pattern; its first colour may be given."""
    first = random_colour(rng) if colour is None else colour
    return Paint(
        first,
        related(rng, first, rng.uniform(0.1, 0.35)),
        str(rng.choice(patterns)) if rng.random() < 0.75 else "plain",
        rng.uniform(*frequency),
        rng.uniform(0, np.pi),
        (rng.random(), rng.random()),
    )


def plain(colour: Array) -> Paint:
    """Return an almost even paint of one colour, with a little grain."""
    return Paint(colour, colour * np.float32(0.75))
