"""Plants."""

from __future__ import annotations

import numpy as np

from toyworld.layer import Parts
from toyworld.outline import blob, box, leaf, oval, polygon, rod, spline, stroke
from toyworld.texture import Theme


def tree(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a tree: stem, branches and a round crown, perhaps with fruit, or a conifer of tiers."""
    u = rng.uniform
    base, w = u(0.8, 0.95), u(0.1, 0.2)
    stem = stroke(
        spline((0, base), (u(-0.06, 0.06), 0.4), (u(-0.06, 0.06), -0.1), closed=False), (w * 2, w * 1.1, w, w * 0.7)
    )
    parts = Parts()
    parts.add(stem, theme.second, "tube", 0.0)
    if rng.random() < 0.45:
        tiers = int(rng.integers(3, 6))
        top, hem, wide = u(-0.95, -0.85), u(0.35, 0.55), u(0.5, 0.7)
        for i in range(tiers):
            y1 = hem + (top - hem) * i / tiers
            y0 = y1 + (top - hem) / tiers * 1.7
            half = wide * (1 - i / (tiers + 0.4))
            sag = u(0.02, 0.09)
            tier = polygon(
                (0, max(y0, top)), (half, y1), (half * 0.4, y1 + sag), (0, y1 - 0.01), (-half * 0.5, y1 + sag),
                (-half, y1),
            )  # fmt: skip
            parts.add(tier, theme.main, "tube", 0.0)
        return parts
    for side in (-1, 1):
        parts.add(rod(0, u(0.1, 0.3), side * u(0.25, 0.45), u(-0.3, -0.1), w * 0.6, w * 0.3), theme.second, "tube")
    count, wide, tall = int(rng.integers(4, 9)), u(0.35, 0.55), u(0.3, 0.45)
    cy = u(-0.5, -0.35)
    for i in range(count):
        a = 2 * np.pi * (i + u(0, 0.6)) / count
        r = u(0.26, 0.42)
        parts.add(blob(rng, wide * np.cos(a), cy + tall * np.sin(a), r, r * 0.9, 0.1), theme.main, "ball", 0.0)
    parts.add(blob(rng, 0, cy - 0.05, 0.45, 0.4, 0.1), theme.main, "ball", 0.0)
    if rng.random() < 0.4:
        for _ in range(int(rng.integers(5, 10))):
            x, y = rng.normal(0, wide * 0.7), cy + rng.normal(0, tall * 0.7)
            parts.add(oval(x, y, 0.055, 0.055), theme.accent, "ball", 0.4)
    return parts


def flower(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a flower: stem, leaves, petals around a disc, or a tulip."""
    u = rng.uniform
    cx, cy = u(-0.15, 0.15), u(-0.5, -0.3)
    stem = spline((u(-0.1, 0.1), 0.95), (u(-0.15, 0.15), 0.4), (cx, cy), closed=False)
    parts = Parts()
    parts.add(stroke(stem, (0.1, 0.07)), theme.second, "tube", 0.0)
    for side in rng.permutation([-1, 1])[: int(rng.integers(1, 3))]:
        y = u(0.25, 0.65)
        parts.add(leaf(0, y + 0.15, side * u(0.4, 0.65), y - u(0.05, 0.3), u(0.18, 0.28)), theme.second)
    petals, reach = int(rng.integers(5, 12)), u(0.4, 0.58)
    width, flat, turn = u(0.9, 1.5) * 2 * np.pi * reach * 0.5 / petals, u(0.7, 1.0), u(0, 1)
    tulip = rng.random() < 0.25
    if tulip:
        for side in (-0.5, 0.5, 0.0):
            petal = leaf(cx + side * 0.15, cy + 0.35, cx + side * 0.9, cy - 0.42, 0.5)
            parts.add(petal, theme.main, "ball", 0.05)
        return parts
    for row in range(2 if rng.random() < 0.3 else 1):
        for i in range(petals):
            a, r = 2 * np.pi * (i + turn + row / 2) / petals, reach * (1 - 0.3 * row)
            petal = leaf(cx, cy, cx + r * np.cos(a), cy + r * flat * np.sin(a), width)
            parts.add(petal, theme.main.scaled(1 + 0.15 * row), gloss=0.05)
    disc = u(0.13, 0.22)
    parts.add(oval(cx, cy, disc, disc * flat), theme.accent, "ball", 0.1)
    return parts


def pottedplant(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a plant in a pot: a fan of leaves, perhaps with flowers, above a tapered pot with a rim."""
    u = rng.uniform
    rim, top = u(0.35, 0.5), u(0.15, 0.35)
    parts = Parts()
    for i in rng.permutation(np.arange(int(rng.integers(6, 11)))):
        a = -np.pi / 2 + (i / 9 - 0.5) * u(1.8, 2.4) + u(-0.2, 0.2)
        r = u(0.7, 1.15)
        x, y = r * np.cos(a) * 0.85, top + r * np.sin(a)
        frond = leaf(0, top, x, y, u(0.16, 0.3))
        parts.add(frond, theme.main.scaled(u(0.8, 1.15)), gloss=0.1)
        parts.add(rod(0, top, x * 0.8, top + (y - top) * 0.8, 0.03, 0.015), theme.main.scaled(0.6), bevel=0)
    if rng.random() < 0.4:
        for _ in range(4):
            parts.add(oval(u(-0.5, 0.5), u(-0.7, -0.1), 0.09, 0.09), theme.accent, "ball")
    foot = rim * u(0.55, 0.85)
    parts.add(polygon((-rim, top), (rim, top), (foot, 0.92), (-foot, 0.92)), theme.second, "tube", 0.15)
    parts.add(box(-rim - 0.06, top - 0.06, rim + 0.06, top + 0.1, 0.02), theme.second.scaled(1.1), "tube", 0.15)
    return parts
