"""Plants and fish."""

from __future__ import annotations

import numpy as np

from toyworld.brush import Part
from toyworld.outline import box, leaf, limb, lump, oval, polygon, rod, smooth
from toyworld.things.wardrobe import Coat


def tree(rng: np.random.Generator, coat: Coat) -> list[Part]:
    """Draw a tree: trunk with roots and branches under a crown of lumps, or a conifer of tiers."""
    u = rng.uniform
    base, w = u(0.8, 0.95), u(0.1, 0.2)
    trunk = limb(
        smooth((0, base), (u(-0.06, 0.06), 0.4), (u(-0.06, 0.06), -0.1), closed=False), (w * 2, w * 1.1, w, w * 0.7)
    )
    parts = [Part(trunk, coat.second, "tube", 0.0)]
    if rng.random() < 0.45:
        tiers = int(rng.integers(3, 6))
        top, hem, wide = u(-0.95, -0.85), u(0.35, 0.55), u(0.5, 0.7)
        for i in range(tiers):
            y1 = hem + (top - hem) * i / tiers
            y0 = y1 + (top - hem) / tiers * 1.7
            half = wide * (1 - i / (tiers + 0.4))
            sag = u(0.02, 0.09)
            tier = polygon(
                (0, max(y0, top)),
                (half, y1),
                (half * 0.4, y1 + sag),
                (0, y1 - 0.01),
                (-half * 0.5, y1 + sag),
                (-half, y1),
            )
            parts.append(Part(tier, coat.main, "tube", 0.0))
        return parts
    for side in (-1, 1):
        parts.append(
            Part(rod(0, u(0.1, 0.3), side * u(0.25, 0.45), u(-0.3, -0.1), w * 0.6, w * 0.3), coat.second, "tube")
        )
    count, wide, tall = int(rng.integers(4, 9)), u(0.35, 0.55), u(0.3, 0.45)
    cy = u(-0.5, -0.35)
    for i in range(count):
        a = 2 * np.pi * (i + u(0, 0.6)) / count
        r = u(0.26, 0.42)
        parts.append(Part(lump(rng, wide * np.cos(a), cy + tall * np.sin(a), r, r * 0.9, 0.1), coat.main, "ball", 0.0))
    parts.append(Part(lump(rng, 0, cy - 0.05, 0.45, 0.4, 0.1), coat.main, "ball", 0.0))
    if rng.random() < 0.4:
        for _ in range(int(rng.integers(5, 10))):
            x, y = rng.normal(0, wide * 0.7), cy + rng.normal(0, tall * 0.7)
            parts.append(Part(oval(x, y, 0.055, 0.055), coat.accent, "ball", 0.4))
    return parts


def flower(rng: np.random.Generator, coat: Coat) -> list[Part]:
    """Draw a flower: bent stem, leaves, petals round a disc."""
    u = rng.uniform
    cx, cy = u(-0.15, 0.15), u(-0.5, -0.3)
    stem = smooth((u(-0.1, 0.1), 0.95), (u(-0.15, 0.15), 0.4), (cx, cy), closed=False)
    parts = [Part(limb(stem, (0.1, 0.07)), coat.second, "tube", 0.0)]
    for side in rng.permutation([-1, 1])[: int(rng.integers(1, 3))]:
        y = u(0.25, 0.65)
        parts.append(Part(leaf(0, y + 0.15, side * u(0.4, 0.65), y - u(0.05, 0.3), u(0.18, 0.28)), coat.second))
    petals, reach = int(rng.integers(5, 12)), u(0.4, 0.58)
    width, flat, turn = u(0.9, 1.5) * 2 * np.pi * reach * 0.5 / petals, u(0.7, 1.0), u(0, 1)
    tulip = rng.random() < 0.25
    if tulip:
        for side in (-0.5, 0.5, 0.0):
            outline = leaf(cx + side * 0.15, cy + 0.35, cx + side * 0.9, cy - 0.42, 0.5)
            parts.append(Part(outline, coat.main, "ball", 0.05))
        return parts
    for row in range(2 if rng.random() < 0.3 else 1):
        for i in range(petals):
            a, r = 2 * np.pi * (i + turn + row / 2) / petals, reach * (1 - 0.3 * row)
            petal = leaf(cx, cy, cx + r * np.cos(a), cy + r * flat * np.sin(a), width)
            parts.append(Part(petal, coat.main.darker(1 + 0.15 * row), gloss=0.05))
    disc = u(0.13, 0.22)
    parts.append(Part(oval(cx, cy, disc, disc * flat), coat.accent, "ball", 0.1))
    return parts


def pottedplant(rng: np.random.Generator, coat: Coat) -> list[Part]:
    """Draw a plant in a pot: leaves or fronds fanning out above a tapered pot with a rim."""
    u = rng.uniform
    rim, top = u(0.35, 0.5), u(0.15, 0.35)
    parts = []
    for i in rng.permutation(np.arange(int(rng.integers(6, 11)))):
        a = -np.pi / 2 + (i / 9 - 0.5) * u(1.8, 2.4) + u(-0.2, 0.2)
        r = u(0.7, 1.15)
        x, y = r * np.cos(a) * 0.85, top + r * np.sin(a)
        outline = leaf(0, top, x, y, u(0.16, 0.3))
        parts.append(Part(outline, coat.main.darker(u(0.8, 1.15)), gloss=0.1))
        parts.append(Part(rod(0, top, x * 0.8, top + (y - top) * 0.8, 0.03, 0.015), coat.main.darker(0.6), bevel=0))
    if rng.random() < 0.4:
        parts += [Part(oval(u(-0.5, 0.5), u(-0.7, -0.1), 0.09, 0.09), coat.accent, "ball") for _ in range(4)]
    foot = rim * u(0.55, 0.85)
    parts.append(Part(polygon((-rim, top), (rim, top), (foot, 0.92), (-foot, 0.92)), coat.second, "tube", 0.15))
    parts.append(Part(box(-rim - 0.06, top - 0.06, rim + 0.06, top + 0.1, 0.02), coat.second.darker(1.1), "tube", 0.15))
    return parts


def fish(rng: np.random.Generator, coat: Coat) -> list[Part]:
    """Draw a fish heading right: tail, fins, body with a pale belly, gill, eye, mouth."""
    u = rng.uniform
    h, nose, end = u(0.28, 0.52), u(0.75, 0.92), u(-0.6, -0.45)
    fork, spread = u(0.05, 0.2), u(0.25, 0.45)
    tail = smooth((end + 0.12, 0), (end - 0.35, -spread), (end - 0.35 + fork, 0), (end - 0.35, spread))
    x0, x1 = u(-0.4, -0.2), u(0.15, 0.4)
    crest = polygon(
        (x0, -h * 0.6), (x0 - u(0.0, 0.15), -h - u(0.1, 0.3)), (x1, -h * 0.85 - u(0, 0.15)), (x1 + 0.1, -h * 0.6)
    )
    belly_fin = polygon((-0.05, h * 0.7), (-u(0.2, 0.35), h + u(0.12, 0.28)), (0.15, h * 0.8))
    body = smooth(
        (nose, 0.02),
        (0.55, -h * 0.68),
        (0.1, -h),
        (-0.35, -h * 0.55),
        (end, -0.08),
        (end, 0.08),
        (-0.35, h * 0.55),
        (0.1, h),
        (0.55, h * 0.7),
    )
    belly = smooth(
        (nose - 0.12, 0.1),
        (0.45, h * 0.3),
        (-0.1, h * 0.35),
        (end + 0.1, 0.06),
        (-0.35, h * 0.5),
        (0.1, h * 0.93),
        (0.5, h * 0.68),
    )
    parts = [
        Part(tail, coat.second),
        Part(crest, coat.second),
        Part(belly_fin, coat.second),
        Part(body, coat.main, "ball", u(0.1, 0.5)),
        Part(belly, coat.light, bevel=0.2, gloss=0.2),
    ]
    if rng.random() < 0.5:
        for x in np.linspace(-0.3, 0.2, int(rng.integers(1, 4))):
            band = limb(smooth((x, -h * 0.75), (x - 0.08, 0), (x, h * 0.7), closed=False), u(0.06, 0.12))
            parts.append(Part(band, coat.accent, bevel=0))
    gill = smooth((0.42, -h * 0.55), (0.34, 0), (0.42, h * 0.5), closed=False)
    parts.append(Part(limb(gill, 0.04), coat.main.darker(0.45), bevel=0))
    parts.append(Part(leaf(0.22, 0.08, -0.12, 0.2 + u(0, 0.1), 0.18), coat.second))
    ex, ey, er = 0.58, -h * 0.25, u(0.07, 0.1)
    parts += [
        Part(oval(ex, ey, er, er), coat.light, "ball", 0.4),
        Part(oval(ex + 0.02, ey, er * 0.5, er * 0.55), coat.dark, "ball", 0.6),
    ]
    parts.append(Part(rod(nose - 0.02, 0.06, nose - 0.17, 0.1, 0.03), coat.dark, bevel=0))
    return parts
