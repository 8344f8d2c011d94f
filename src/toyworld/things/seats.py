"""Furniture to sit on and at."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from toyworld.brush import Part
from toyworld.outline import box, oval, polygon, rod
from toyworld.things.wardrobe import Coat


def chair(rng: np.random.Generator, coat: Coat) -> list[Part]:
    """Draw a chair from a little to the side: four legs, a seat, a back of slats, bars or cloth, perhaps arms."""
    u = rng.uniform
    half, seat, floor = u(0.36, 0.48), u(0.05, 0.25), u(0.82, 0.95)
    slant, rise = u(0.12, 0.32), u(0.12, 0.24)
    top, leg = u(-0.95, -0.65), u(0.07, 0.12)
    back = seat - rise
    parts = [
        Part(rod(x + slant, back, x + slant * 1.1, floor - rise * 0.9, leg), coat.second.darker(0.65), "tube")
        for x in (-half, half)
    ]
    x0, x1 = -half + slant, half + slant
    lean = u(0.0, 0.1)
    posts = [Part(rod(x, back, x + lean, top, leg), coat.second, "tube") for x in (x0 + 0.03, x1 - 0.03)]
    style = int(rng.integers(3))
    fill = []
    if style == 0:
        fill = [
            Part(rod(x0, y, x1, y, u(0.09, 0.14)), coat.main, "bar")
            for y in np.linspace(top + 0.1, back - 0.2, int(rng.integers(2, 4)))
        ]
    elif style == 1:
        bars = np.linspace(x0, x1, int(rng.integers(4, 7)))[1:-1]
        fill = [Part(rod(x, back, x + lean, top, 0.06), coat.main, "tube") for x in bars]
        fill.append(Part(rod(x0 + lean - 0.05, top, x1 + lean + 0.05, top, 0.13), coat.main, "bar"))
    else:
        shift = lean / 2
        pad = box(x0 + shift, top, x1 + shift, back - u(0.05, 0.2), u(0.05, 0.3))
        fill = [Part(pad, coat.main, "ball")]
    parts += posts + fill
    parts.append(
        Part(polygon((-half - 0.03, seat), (x0 - 0.02, back), (x1 + 0.02, back), (half + 0.03, seat)), coat.main)
    )
    parts.append(Part(box(-half - 0.03, seat, half + 0.03, seat + u(0.06, 0.12)), coat.main.darker(0.75)))
    parts += [
        Part(rod(x, seat + 0.08, x * 1.05, floor, leg, leg * 0.75), coat.second, "tube")
        for x in (-half + 0.02, half - 0.02)
    ]
    if rng.random() < 0.3:
        for x in (-half, half):
            parts.append(Part(rod(x, seat, x, seat - 0.33, leg * 0.8), coat.second, "tube"))
            parts.append(Part(rod(x - 0.02, seat - 0.33, x + slant, back - 0.33, 0.1), coat.second, "bar"))
    return parts


def sofa(rng: np.random.Generator, coat: Coat) -> list[Part]:
    """Draw a sofa: back, two or three cushions, arm rests, short feet."""
    u = rng.uniform
    w, back, seat, base = u(0.8, 0.92), u(-0.5, -0.25), u(0.05, 0.2), u(0.45, 0.55)
    arm = u(0.16, 0.24)
    parts = [Part(rod(x * w * 0.85, base, x * w * 0.88, base + 0.2, 0.1, 0.06), coat.dark, "tube") for x in (-1, 1)]
    parts.append(Part(box(-w + 0.05, back, w - 0.05, base, 0.15), coat.main))
    seats = int(rng.integers(2, 4))
    edge = np.linspace(-w + arm, w - arm, seats + 1)
    for x0, x1 in pairwise(edge):
        parts.append(Part(box(x0, back + 0.08, x1, seat + 0.05, 0.1), coat.main.darker(0.9), "ball"))
    for x0, x1 in pairwise(edge):
        parts.append(Part(box(x0, seat - 0.02, x1, seat + 0.2, 0.07), coat.main.darker(1.1), "bar"))
    parts.append(Part(box(-w, seat + 0.15, w, base + 0.04, 0.03), coat.main.darker(0.8)))
    parts += [
        Part(box(min(x, x + s * arm), seat - 0.22, max(x, x + s * arm), base + 0.06, 0.11), coat.main, "tube")
        for x, s in ((-w - 0.04, 1), (w + 0.04, -1))
    ]
    if rng.random() < 0.6:
        x = u(-w * 0.6, w * 0.4)
        parts.append(
            Part(
                polygon((x, seat - 0.2), (x + 0.28, seat - 0.26), (x + 0.32, seat + 0.02), (x + 0.02, seat + 0.04)),
                coat.second,
                "ball",
            )
        )
    return parts


def diningtable(rng: np.random.Generator, coat: Coat) -> list[Part]:
    """Draw a table with things on it: legs or a pillar, a top seen from above, plates, a vase or a cloth."""
    u = rng.uniform
    w, top, floor, deep = u(0.75, 0.92), u(-0.25, 0.0), u(0.7, 0.85), u(0.14, 0.24)
    leg = u(0.08, 0.13)
    parts = []
    round_top = rng.random() < 0.45
    if round_top:
        parts.append(Part(rod(0, top, 0, floor - 0.05, leg * 1.6), coat.second, "tube"))
        parts.append(Part(oval(0, floor - 0.02, w * 0.45, 0.09), coat.second.darker(0.85), "ball"))
        parts.append(Part(oval(0, top + 0.07, w, deep), coat.main.darker(0.6)))
        parts.append(Part(oval(0, top, w, deep), coat.main))
    else:
        inset = u(0.1, 0.25)
        parts += [
            Part(rod(x, top, x, floor - 0.2, leg), coat.second.darker(0.65), "tube")
            for x in (-w + inset + 0.05, w - inset - 0.05)
        ]
        parts.append(Part(box(-w, top + deep - 0.02, w, top + deep + 0.09), coat.main.darker(0.65)))
        parts += [Part(rod(x, top + deep + 0.08, x, floor, leg), coat.second, "tube") for x in (-w + 0.07, w - 0.07)]
        parts.append(
            Part(
                polygon((-w, top + deep), (-w + inset, top - deep), (w - inset, top - deep), (w, top + deep)), coat.main
            )
        )
    for x in (-w * 0.5, w * 0.45):
        parts.append(Part(oval(x, top + deep * 0.3, 0.19, 0.07), coat.light))
        parts.append(Part(oval(x, top + deep * 0.3, 0.11, 0.04), coat.accent, bevel=-0.4))
    if rng.random() < 0.7:
        x, tall = u(-0.1, 0.1), u(0.25, 0.4)
        parts.append(
            Part(
                polygon((x - 0.09, top - tall), (x + 0.09, top - tall), (x + 0.06, top), (x - 0.06, top)),
                coat.accent,
                "tube",
                0.5,
            )
        )
    return parts
