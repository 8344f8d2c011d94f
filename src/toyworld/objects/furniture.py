"""Furniture."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from toyworld.layer import Parts
from toyworld.outline import box, oval, polygon, rod
from toyworld.texture import Theme


def chair(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a chair seen obliquely: four legs, a seat, a back of slats, bars or cloth, perhaps arms."""
    u = rng.uniform
    half, seat, floor = u(0.36, 0.48), u(0.05, 0.25), u(0.82, 0.95)
    slant, rise = u(0.12, 0.32), u(0.12, 0.24)
    top, leg = u(-0.95, -0.65), u(0.07, 0.12)
    back = seat - rise
    parts = Parts()
    for x in (-half, half):
        parts.add(rod(x + slant, back, x + slant * 1.1, floor - rise * 0.9, leg), theme.second.scaled(0.65), "tube")
    x0, x1 = -half + slant, half + slant
    lean = u(0.0, 0.1)
    for x in (x0 + 0.03, x1 - 0.03):
        parts.add(rod(x, back, x + lean, top, leg), theme.second, "tube")
    style = int(rng.integers(3))
    if style == 0:
        for y in np.linspace(top + 0.1, back - 0.2, int(rng.integers(2, 4))):
            parts.add(rod(x0, y, x1, y, u(0.09, 0.14)), theme.main, "bar")
    elif style == 1:
        for x in np.linspace(x0, x1, int(rng.integers(4, 7)))[1:-1]:
            parts.add(rod(x, back, x + lean, top, 0.06), theme.main, "tube")
        parts.add(rod(x0 + lean - 0.05, top, x1 + lean + 0.05, top, 0.13), theme.main, "bar")
    else:
        cushion = box(x0 + lean / 2, top, x1 + lean / 2, back - u(0.05, 0.2), u(0.05, 0.3))
        parts.add(cushion, theme.main, "ball")
    parts.add(polygon((-half - 0.03, seat), (x0 - 0.02, back), (x1 + 0.02, back), (half + 0.03, seat)), theme.main)
    parts.add(box(-half - 0.03, seat, half + 0.03, seat + u(0.06, 0.12)), theme.main.scaled(0.75))
    for x in (-half + 0.02, half - 0.02):
        parts.add(rod(x, seat + 0.08, x * 1.05, floor, leg, leg * 0.75), theme.second, "tube")
    if rng.random() < 0.3:
        for x in (-half, half):
            parts.add(rod(x, seat, x, seat - 0.33, leg * 0.8), theme.second, "tube")
            parts.add(rod(x - 0.02, seat - 0.33, x + slant, back - 0.33, 0.1), theme.second, "bar")
    return parts


def sofa(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a sofa: feet, back, two or three cushions, arm rests, perhaps a pillow."""
    u = rng.uniform
    w, back, seat, base = u(0.8, 0.92), u(-0.5, -0.25), u(0.05, 0.2), u(0.45, 0.55)
    arm = u(0.16, 0.24)
    parts = Parts()
    for side in (-1, 1):
        parts.add(rod(side * w * 0.85, base, side * w * 0.88, base + 0.2, 0.1, 0.06), theme.dark, "tube")
    parts.add(box(-w + 0.05, back, w - 0.05, base, 0.15), theme.main)
    seats = int(rng.integers(2, 4))
    edge = np.linspace(-w + arm, w - arm, seats + 1)
    for x0, x1 in pairwise(edge):
        parts.add(box(x0, back + 0.08, x1, seat + 0.05, 0.1), theme.main.scaled(0.9), "ball")
    for x0, x1 in pairwise(edge):
        parts.add(box(x0, seat - 0.02, x1, seat + 0.2, 0.07), theme.main.scaled(1.1), "bar")
    parts.add(box(-w, seat + 0.15, w, base + 0.04, 0.03), theme.main.scaled(0.8))
    for x, side in ((-w - 0.04, 1), (w + 0.04, -1)):
        parts.add(
            box(min(x, x + side * arm), seat - 0.22, max(x, x + side * arm), base + 0.06, 0.11), theme.main, "tube"
        )
    if rng.random() < 0.6:
        x = u(-w * 0.6, w * 0.4)
        pillow = polygon((x, seat - 0.2), (x + 0.28, seat - 0.26), (x + 0.32, seat + 0.02), (x + 0.02, seat + 0.04))
        parts.add(pillow, theme.second, "ball")
    return parts


def diningtable(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a table: legs or a pillar, a top seen from above, plates, perhaps a vase."""
    u = rng.uniform
    w, top, floor, deep = u(0.75, 0.92), u(-0.25, 0.0), u(0.7, 0.85), u(0.14, 0.24)
    leg = u(0.08, 0.13)
    parts = Parts()
    round_top = rng.random() < 0.45
    if round_top:
        parts.add(rod(0, top, 0, floor - 0.05, leg * 1.6), theme.second, "tube")
        parts.add(oval(0, floor - 0.02, w * 0.45, 0.09), theme.second.scaled(0.85), "ball")
        parts.add(oval(0, top + 0.07, w, deep), theme.main.scaled(0.6))
        parts.add(oval(0, top, w, deep), theme.main)
    else:
        inset = u(0.1, 0.25)
        for x in (-w + inset + 0.05, w - inset - 0.05):
            parts.add(rod(x, top, x, floor - 0.2, leg), theme.second.scaled(0.65), "tube")
        parts.add(box(-w, top + deep - 0.02, w, top + deep + 0.09), theme.main.scaled(0.65))
        for x in (-w + 0.07, w - 0.07):
            parts.add(rod(x, top + deep + 0.08, x, floor, leg), theme.second, "tube")
        table_top = polygon((-w, top + deep), (-w + inset, top - deep), (w - inset, top - deep), (w, top + deep))
        parts.add(table_top, theme.main)
    for x in (-w * 0.5, w * 0.45):
        parts.add(oval(x, top + deep * 0.3, 0.19, 0.07), theme.light)
        parts.add(oval(x, top + deep * 0.3, 0.11, 0.04), theme.accent, bevel=-0.4)
    if rng.random() < 0.7:
        x, tall = u(-0.1, 0.1), u(0.25, 0.4)
        vase = polygon((x - 0.09, top - tall), (x + 0.09, top - tall), (x + 0.06, top), (x - 0.06, top))
        parts.add(vase, theme.accent, "tube", 0.5)
    return parts
