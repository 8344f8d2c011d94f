"""Animals: birds of many species, and fish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toyworld.layer import Parts
from toyworld.outline import leaf, oval, polygon, rod, spline, stroke
from toyworld.texture import Texture, Theme


@dataclass(frozen=True)
class BirdSpecies:
    """The features of a species; each is one of a few forms, counted from 0."""

    beak: int
    crest: int
    tail: int
    marking: int
    neck: int
    legs: int

    NUM_FORMS: ClassVar[tuple[int, ...]] = (4, 4, 4, 5, 3, 3)

    @staticmethod
    def random(rng: np.random.Generator) -> BirdSpecies:
        """Draw a species."""
        return BirdSpecies(*(int(rng.integers(k)) for k in BirdSpecies.NUM_FORMS))


def bird(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a bird of any species."""
    return draw_bird(BirdSpecies.random(rng), rng, theme)


def draw_bird(species: BirdSpecies, rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a bird: legs, tail, body, neck, crest, beak, head, markings, wing, eye."""
    u = rng.uniform
    long, tall = u(0.42, 0.5), u(0.27, 0.34)
    reach = (0.12, 0.28, 0.5)[species.neck]
    hx, hy, hr = 0.42 + u(-0.03, 0.05), 0.0 - reach - 0.1, u(0.17, 0.2)
    length = (0.2, 0.38, 0.6)[species.legs]
    foot = 0.2 + tall * 0.8 + length
    cy = 0.2
    parts = Parts()
    for x in (-0.08 + u(-0.03, 0.03), 0.14 + u(-0.03, 0.03)):
        parts.add(rod(x, cy + tall * 0.6, x + 0.03, foot, 0.055), theme.dark, "tube")
        parts.add(rod(x - 0.04, foot, x + 0.15, foot, 0.06, 0.03), theme.dark, "bar")
    _add_tail(parts, species.tail, -long * 0.8, cy, theme.second)
    body = spline(
        (long, cy - 0.06), (0.2, cy - tall), (-0.2, cy - tall * 0.8), (-long - 0.08, cy - 0.02),
        (-0.25, cy + tall * 0.75), (0.15, cy + tall), (long * 0.9, cy + tall * 0.5),
    )  # fmt: skip
    parts.add(body, theme.main, "ball", 0.1)
    neck = stroke(
        spline((0.22, cy), (0.38, cy - 0.12 - reach * 0.4), (hx, hy), closed=False), (0.34, 0.24 - 0.1 * reach, 0.2)
    )
    parts.add(neck, theme.main, "ball", 0.05)
    _add_crest(parts, species.crest, hx, hy, hr, theme.accent)
    _add_beak(parts, species.beak, hx, hy, hr, theme.dark if rng.random() < 0.4 else theme.accent)
    parts.add(oval(hx, hy, hr * 1.05, hr), theme.main, "ball", 0.1)
    _add_marking(parts, species.marking, hx, hy, hr, cy, tall, theme)
    lift = u(-0.05, 0.15)
    wing = spline(
        (0.22, cy - 0.12), (-0.05, cy - 0.18), (-long - 0.12, cy - lift), (-0.28, cy + 0.14), (0.08, cy + 0.16)
    )
    parts.add(wing, theme.second, "ball", 0.05)
    if species.marking == 4:
        for shift in (-0.02, 0.08):
            parts.add(rod(0.1 - shift, cy - 0.1 + shift, -0.2 - shift, cy + shift * 0.9, 0.05), theme.light, bevel=0)
    ex, ey = hx + hr * 0.35, hy - hr * 0.15
    parts.add(oval(ex, ey, 0.055, 0.055), theme.light, "ball", 0.3)
    parts.add(oval(ex + 0.01, ey, 0.032, 0.035), theme.dark, "ball", 0.7)
    return parts


def _add_beak(parts: Parts, kind: int, x: float, y: float, r: float, texture: Texture) -> None:
    x += r * 0.85
    beak = (
        polygon((x, y - 0.07), (x + 0.2, y + 0.02), (x, y + 0.08)),
        polygon((x, y - 0.05), (x + 0.48, y + 0.04), (x, y + 0.05)),
        spline(
            (x - 0.02, y - 0.1), (x + 0.17, y - 0.06), (x + 0.2, y + 0.16), (x + 0.1, y + 0.06), (x - 0.02, y + 0.1),
        ),
        spline(
            (x - 0.02, y - 0.04), (x + 0.2, y + 0.0), (x + 0.36, y - 0.02), (x + 0.36, y + 0.1), (x + 0.18, y + 0.09),
            (x - 0.02, y + 0.08),
        ),
    )[kind]  # fmt: skip
    parts.add(beak, texture, "bar", 0.2)


def _add_crest(parts: Parts, kind: int, x: float, y: float, r: float, texture: Texture) -> None:
    if kind == 1:
        crest = polygon((x + r * 0.5, y - r * 0.6), (x - r * 0.5, y - r * 2.2), (x - r * 0.9, y - r * 0.2))
        parts.add(crest, texture)
    elif kind == 2:
        for dx in (-0.6, 0.5, 0):
            parts.add(oval(x + dx * r, y - r * (1.05 + 0.25 * (dx == 0)), r * 0.36, r * 0.4), texture, "ball")
    elif kind == 3:
        for dx, dy in ((2.3, 0.5), (2.1, 1.1), (1.6, 1.7)):
            parts.add(leaf(x - r * 0.3, y - r * 0.4, x - r * dx, y - r * dy, 0.09), texture)


def _add_tail(parts: Parts, kind: int, x: float, y: float, texture: Texture) -> None:
    if kind == 0:
        tail = polygon((x + 0.1, y - 0.1), (x - 0.22, y - 0.02), (x - 0.22, y + 0.1), (x + 0.1, y + 0.1))
        parts.add(tail, texture)
    elif kind == 1:
        spine = spline((x + 0.1, y), (x - 0.25, y + 0.02), (x - 0.6, y + 0.2), closed=False)
        parts.add(stroke(spine, (0.2, 0.12, 0.08)), texture)
    elif kind == 2:
        for dy in (-0.22, 0.22):
            parts.add(leaf(x + 0.12, y, x - 0.45, y + dy, 0.13), texture)
    else:
        for dx, dy in ((-0.22, -0.42), (-0.38, -0.26), (-0.45, -0.06), (-0.4, 0.14)):
            parts.add(leaf(x + 0.12, y, x + dx, y + dy, 0.2), texture)


def _add_marking(
    parts: Parts, kind: int, hx: float, hy: float, hr: float, cy: float, tall: float, theme: Theme
) -> None:
    if kind == 1:
        belly = spline(
            (0.42, cy), (0.2, cy + 0.02), (-0.1, cy + tall * 0.6), (0.14, cy + tall * 0.95), (0.38, cy + tall * 0.5),
        )  # fmt: skip
        parts.add(belly, theme.light, bevel=0.3)
    elif kind == 2:
        cap = oval(hx, hy - hr * 0.1, hr * 1.06, hr * 0.95, arc=(0.5, 1.0))
        parts.add(cap, theme.dark, "ball", bevel=0.2)
    elif kind == 3:
        collar = rod(hx - hr * 0.95, hy + hr * 0.75, hx + hr * 0.8, hy + hr * 0.95, 0.08)
        parts.add(collar, theme.light, bevel=0.2)


def fish(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a fish: tail, fins, body with a pale belly, gill, eye, mouth."""
    u = rng.uniform
    h, nose, end = u(0.28, 0.52), u(0.75, 0.92), u(-0.6, -0.45)
    fork, spread = u(0.05, 0.2), u(0.25, 0.45)
    tail = spline((end + 0.12, 0), (end - 0.35, -spread), (end - 0.35 + fork, 0), (end - 0.35, spread))
    x0, x1 = u(-0.4, -0.2), u(0.15, 0.4)
    crest = polygon(
        (x0, -h * 0.6), (x0 - u(0.0, 0.15), -h - u(0.1, 0.3)), (x1, -h * 0.85 - u(0, 0.15)), (x1 + 0.1, -h * 0.6)
    )
    belly_fin = polygon((-0.05, h * 0.7), (-u(0.2, 0.35), h + u(0.12, 0.28)), (0.15, h * 0.8))
    body = spline(
        (nose, 0.02), (0.55, -h * 0.68), (0.1, -h), (-0.35, -h * 0.55), (end, -0.08), (end, 0.08), (-0.35, h * 0.55),
        (0.1, h), (0.55, h * 0.7),
    )  # fmt: skip
    belly = spline(
        (nose - 0.12, 0.1), (0.45, h * 0.3), (-0.1, h * 0.35), (end + 0.1, 0.06), (-0.35, h * 0.5), (0.1, h * 0.93),
        (0.5, h * 0.68),
    )  # fmt: skip
    parts = Parts()
    parts.add(tail, theme.second)
    parts.add(crest, theme.second)
    parts.add(belly_fin, theme.second)
    parts.add(body, theme.main, "ball", u(0.1, 0.5))
    parts.add(belly, theme.light, bevel=0.2, gloss=0.2)
    if rng.random() < 0.5:
        for x in np.linspace(-0.3, 0.2, int(rng.integers(1, 4))):
            band = stroke(spline((x, -h * 0.75), (x - 0.08, 0), (x, h * 0.7), closed=False), u(0.06, 0.12))
            parts.add(band, theme.accent, bevel=0)
    gill = spline((0.42, -h * 0.55), (0.34, 0), (0.42, h * 0.5), closed=False)
    parts.add(stroke(gill, 0.04), theme.main.scaled(0.45), bevel=0)
    parts.add(leaf(0.22, 0.08, -0.12, 0.2 + u(0, 0.1), 0.18), theme.second)
    ex, ey, er = 0.58, -h * 0.25, u(0.07, 0.1)
    parts.add(oval(ex, ey, er, er), theme.light, "ball", 0.4)
    parts.add(oval(ex + 0.02, ey, er * 0.5, er * 0.55), theme.dark, "ball", 0.6)
    parts.add(rod(nose - 0.02, 0.06, nose - 0.17, 0.1, 0.03), theme.dark, bevel=0)
    return parts
