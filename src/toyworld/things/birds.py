"""Birds of many forms, all heading right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toyworld.brush import Part
from toyworld.outline import leaf, limb, oval, polygon, rod, smooth
from toyworld.texture import Paint
from toyworld.things.wardrobe import Coat


@dataclass(frozen=True)
class BirdForm:
    """What tells one kind of bird from another; each field is one of a few forms, counted from 0."""

    beak: int
    crest: int
    tail: int
    marking: int
    neck: int
    legs: int

    CHOICES: ClassVar[tuple[int, ...]] = (4, 4, 4, 5, 3, 3)

    @staticmethod
    def random(rng: np.random.Generator) -> BirdForm:
        """Draw a form."""
        return BirdForm(*(int(rng.integers(k)) for k in BirdForm.CHOICES))


def bird(rng: np.random.Generator, coat: Coat) -> list[Part]:
    """Draw a bird of any form."""
    return bird_of(BirdForm.random(rng), rng, coat)


def bird_of(form: BirdForm, rng: np.random.Generator, coat: Coat) -> list[Part]:
    """Draw a bird of one form, heading right: legs, tail, body, wing, neck, head, beak, crest, markings."""
    u = rng.uniform
    long, tall = u(0.42, 0.5), u(0.27, 0.34)
    reach = (0.12, 0.28, 0.5)[form.neck]
    hx, hy, hr = 0.42 + u(-0.03, 0.05), 0.0 - reach - 0.1, u(0.17, 0.2)
    length = (0.2, 0.38, 0.6)[form.legs]
    foot = 0.2 + tall * 0.8 + length
    cy = 0.2
    parts = []
    for x in (-0.08 + u(-0.03, 0.03), 0.14 + u(-0.03, 0.03)):
        parts.append(Part(rod(x, cy + tall * 0.6, x + 0.03, foot, 0.055), coat.dark, "tube"))
        parts.append(Part(rod(x - 0.04, foot, x + 0.15, foot, 0.06, 0.03), coat.dark, "bar"))
    parts += _tail(form.tail, -long * 0.8, cy, coat.second)
    body = smooth(
        (long, cy - 0.06),
        (0.2, cy - tall),
        (-0.2, cy - tall * 0.8),
        (-long - 0.08, cy - 0.02),
        (-0.25, cy + tall * 0.75),
        (0.15, cy + tall),
        (long * 0.9, cy + tall * 0.5),
    )
    parts.append(Part(body, coat.main, "ball", 0.1))
    neck = limb(
        smooth((0.22, cy), (0.38, cy - 0.12 - reach * 0.4), (hx, hy), closed=False), (0.34, 0.24 - 0.1 * reach, 0.2)
    )
    parts.append(Part(neck, coat.main, "ball", 0.05))
    parts += _crest(form.crest, hx, hy, hr, coat.accent)
    parts += _beak(form.beak, hx, hy, hr, coat.dark if rng.random() < 0.4 else coat.accent)
    parts.append(Part(oval(hx, hy, hr * 1.05, hr), coat.main, "ball", 0.1))
    parts += _marking(form.marking, hx, hy, hr, cy, tall, coat)
    lift = u(-0.05, 0.15)
    wing = smooth(
        (0.22, cy - 0.12), (-0.05, cy - 0.18), (-long - 0.12, cy - lift), (-0.28, cy + 0.14), (0.08, cy + 0.16)
    )
    parts.append(Part(wing, coat.second, "ball", 0.05))
    if form.marking == 4:
        for shift in (-0.02, 0.08):
            parts.append(
                Part(rod(0.1 - shift, cy - 0.1 + shift, -0.2 - shift, cy + shift * 0.9, 0.05), coat.light, bevel=0)
            )
    ex, ey = hx + hr * 0.35, hy - hr * 0.15
    parts += [
        Part(oval(ex, ey, 0.055, 0.055), coat.light, "ball", 0.3),
        Part(oval(ex + 0.01, ey, 0.032, 0.035), coat.dark, "ball", 0.7),
    ]
    return parts


def _beak(kind: int, x: float, y: float, r: float, paint: Paint) -> list[Part]:
    x += r * 0.85
    outline = (
        polygon((x, y - 0.07), (x + 0.2, y + 0.02), (x, y + 0.08)),
        polygon((x, y - 0.05), (x + 0.48, y + 0.04), (x, y + 0.05)),
        smooth(
            (x - 0.02, y - 0.1), (x + 0.17, y - 0.06), (x + 0.2, y + 0.16), (x + 0.1, y + 0.06), (x - 0.02, y + 0.1)
        ),
        smooth(
            (x - 0.02, y - 0.04),
            (x + 0.2, y + 0.0),
            (x + 0.36, y - 0.02),
            (x + 0.36, y + 0.1),
            (x + 0.18, y + 0.09),
            (x - 0.02, y + 0.08),
        ),
    )[kind]
    return [Part(outline, paint, "bar", 0.2)]


def _crest(kind: int, x: float, y: float, r: float, paint: Paint) -> list[Part]:
    if kind == 0:
        return []
    if kind == 1:
        return [
            Part(polygon((x + r * 0.5, y - r * 0.6), (x - r * 0.5, y - r * 2.2), (x - r * 0.9, y - r * 0.2)), paint)
        ]
    if kind == 2:
        return [
            Part(oval(x + dx * r, y - r * (1.05 + 0.25 * (dx == 0)), r * 0.36, r * 0.4), paint, "ball")
            for dx in (-0.6, 0.5, 0)
        ]
    return [
        Part(leaf(x - r * 0.3, y - r * 0.4, x - r * dx, y - r * dy, 0.09), paint)
        for dx, dy in ((2.3, 0.5), (2.1, 1.1), (1.6, 1.7))
    ]


def _tail(kind: int, x: float, y: float, paint: Paint) -> list[Part]:
    if kind == 0:
        return [Part(polygon((x + 0.1, y - 0.1), (x - 0.22, y - 0.02), (x - 0.22, y + 0.1), (x + 0.1, y + 0.1)), paint)]
    if kind == 1:
        return [
            Part(
                limb(smooth((x + 0.1, y), (x - 0.25, y + 0.02), (x - 0.6, y + 0.2), closed=False), (0.2, 0.12, 0.08)),
                paint,
            )
        ]
    if kind == 2:
        return [Part(leaf(x + 0.12, y, x - 0.45, y + dy, 0.13), paint) for dy in (-0.22, 0.22)]
    fan = [(-0.22, -0.42), (-0.38, -0.26), (-0.45, -0.06), (-0.4, 0.14)]
    return [Part(leaf(x + 0.12, y, x + dx, y + dy, 0.2), paint) for dx, dy in fan]


def _marking(kind: int, hx: float, hy: float, hr: float, cy: float, tall: float, coat: Coat) -> list[Part]:
    if kind == 1:
        return [
            Part(
                smooth(
                    (0.42, cy + 0.0),
                    (0.2, cy + 0.02),
                    (-0.1, cy + tall * 0.6),
                    (0.14, cy + tall * 0.95),
                    (0.38, cy + tall * 0.5),
                ),
                coat.light,
                bevel=0.3,
            )
        ]
    if kind == 2:
        return [Part(oval(hx, hy - hr * 0.1, hr * 1.06, hr * 0.95, arc=(0.5, 1.0)), coat.dark, "ball", bevel=0.2)]
    if kind == 3:
        return [Part(rod(hx - hr * 0.95, hy + hr * 0.75, hx + hr * 0.8, hy + hr * 0.95, 0.08), coat.light, bevel=0.2)]
    return []
