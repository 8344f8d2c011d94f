"""Textures: the color of every point of a plane, as a function of two colors and a few numbers."""

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
def _noise_tile() -> Array:
    """Return one (512, 512) float32 image of fractal noise in 0..1 that tiles without a seam."""
    rng = np.random.default_rng(20180601)
    k = np.fft.fftfreq(_TILE, 1 / _TILE)
    radius = np.hypot(k[:, None], k[None, :])
    radius[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.standard_normal((_TILE, _TILE))) * np.maximum(radius, 4.0) ** -1.6
    field = np.fft.ifft2(spectrum).real
    return np.clip((field - field.mean()) / (field.std() * 4) + 0.5, 0, 1).astype(np.float32)


def noise(x: Array, y: Array, offset: tuple[float, float] = (0.0, 0.0)) -> Array:
    """Look up fractal noise (0..1) at x, y, broadcast against each other; its largest features are ~ 1/8 wide."""
    column = ((x + offset[0]) * _TILE).astype(np.int32) % _TILE
    row = ((y + offset[1]) * _TILE).astype(np.int32) % _TILE
    return _noise_tile()[row, column]


def soft_step(value: Array, width: float) -> Array:
    """Map value < -width to 0 and > width to 1 with a linear ramp between."""
    return np.clip(value / (2 * width) + 0.5, 0, 1)


@dataclass(frozen=True)
class Texture:
    """A pattern of two RGB colors (0..1); `frequency` is in periods per unit of the plane, `angle` in radians."""

    color: Array
    other: Array
    pattern: str = "plain"
    frequency: float = 3.0
    angle: float = 0.0
    phase: tuple[float, float] = (0.0, 0.0)

    def at(self, x: Array, y: Array) -> Array:
        """Return the colors, shape broadcast(x, y) + (3,), at the points x, y."""
        weight = self._weight(x, y)[..., None]
        return self.color + (self.other - self.color) * weight

    def _weight(self, x: Array, y: Array) -> Array:
        """Return the weight (0..1) of the second color at each point."""
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
            raise ValueError(f"unknown pattern {self.pattern!r}; choose one of {PATTERNS}.")
        return 0.85 * hard + 0.15 * grain

    def scaled(self, factor: float) -> Texture:
        """Return the same pattern with both colors multiplied by `factor`: < 1 is darker, > 1 is brighter."""
        f = np.float32(factor)
        return replace(self, color=np.clip(self.color * f, 0, 1), other=np.clip(self.other * f, 0, 1))


def hsv(hue: float, saturation: float, value: float) -> Array:
    """Return an RGB color (3,) in 0..1."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def random_color(rng: np.random.Generator, value: tuple[float, float] = (0.3, 0.95)) -> Array:
    """Draw a color of any saturation; warm and blue hues are more frequent than green and violet ones."""
    hue = (rng.normal(0.08, 0.05), rng.normal(0.59, 0.06), rng.random())[int(rng.integers(3))]
    return hsv(hue, float(rng.beta(1.5, 2.0)), rng.uniform(*value))


def distinct_color(rng: np.random.Generator, color: Array, min_distance: float = 0.28) -> Array:
    """Draw a color at least `min_distance` from `color` (root mean square over RGB)."""
    other = random_color(rng)
    while np.sqrt(np.mean((other - color) ** 2)) < min_distance:
        other = random_color(rng, (0.1, 1.0))
    return other


def random_texture(
    rng: np.random.Generator, color: Array | None = None, frequency: tuple[float, float] = (2.5, 6.0)
) -> Texture:
    """Draw a texture; its first color may be given."""
    first = random_color(rng) if color is None else color
    return Texture(
        first,
        distinct_color(rng, first, rng.uniform(0.1, 0.35)),
        str(rng.choice(PATTERNS)) if rng.random() < 0.75 else "plain",
        rng.uniform(*frequency),
        rng.uniform(0, np.pi),
        (rng.random(), rng.random()),
    )


def plain(color: Array) -> Texture:
    """Return an almost uniform texture of one color, with a little grain."""
    return Texture(color, color * np.float32(0.75))


WHITE = plain(np.ones(3, np.float32))


@dataclass(frozen=True)
class Theme:
    """The textures of one object by role: `main` and `second` for most of it, `accent` for small parts,
    `dark` and `light` for details. A theme is independent of the object's class.
    """

    main: Texture
    second: Texture
    accent: Texture
    dark: Texture
    light: Texture

    @staticmethod
    def random(rng: np.random.Generator) -> Theme:
        """Draw a theme."""
        main = random_texture(rng)
        second = random_texture(rng, distinct_color(rng, main.color, 0.18))
        if rng.random() < 0.3:
            second = main.scaled(rng.uniform(0.55, 0.8))
        accent = plain(distinct_color(rng, second.color, 0.3))
        dark = plain(random_color(rng, (0.05, 0.22)))
        light = plain(random_color(rng, (0.8, 1.0)) * np.float32(0.5) + np.float32(0.5))
        return Theme(main, second, accent, dark, light)
