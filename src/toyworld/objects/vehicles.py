"""Vehicles."""

from __future__ import annotations

import numpy as np

from toyworld.layer import Parts
from toyworld.outline import box, join, leaf, oval, polygon, rod, spline, stroke
from toyworld.texture import Theme


def _wheel(x: float, y: float, r: float, theme: Theme, spokes: int) -> Parts:
    parts = Parts()
    parts.add(oval(x, y, r, r), theme.dark, gloss=0.05)
    parts.add(oval(x, y, r * 0.6, r * 0.6), theme.light, "ball", 0.4)
    for i in range(spokes):
        a = np.pi * i / spokes
        dx, dy = r * 0.55 * np.cos(a), r * 0.55 * np.sin(a)
        parts.add(rod(x - dx, y - dy, x + dx, y + dy, 0.035), theme.dark, bevel=0)
    parts.add(oval(x, y, r * 0.18, r * 0.18), theme.accent, "ball", 0.4)
    return parts


def car(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a car: sedan, hatchback, van, pickup or coupe, with cabin, windows, door, lights and wheels."""
    u = rng.uniform
    w, r = u(0.85, 0.97), u(0.18, 0.25)
    floor = 0.42
    waist, roof = u(-0.08, 0.06), u(-0.48, -0.34)
    body = int(rng.integers(5))
    front, back = ((0.25, -0.42), (0.3, -0.78), (0.45, -0.9), (0.3, -0.15), (0.12, -0.45))[body]
    rake, tail = u(0.18, 0.32), (u(0.15, 0.3), u(0.02, 0.1), u(0.0, 0.04), u(0.0, 0.06), u(0.3, 0.45))[body]
    parts = Parts()
    cabin = polygon((back - tail, waist + 0.03), (back, roof), (front, roof), (front + rake, waist + 0.03))
    parts.add(cabin, theme.main, "bar", 0.3)
    hull = spline(
        (-w, waist + 0.12), (-w + 0.06, waist), (-0.3, waist - 0.02), (0.4, waist - 0.01), (w - 0.15, waist + 0.1),
        (w, waist + 0.24), (w - 0.02, floor), (0.0, floor + 0.02), (-w + 0.03, floor), steps=5,
    )  # fmt: skip
    parts.add(hull, theme.main, "bar", 0.35)
    y0, y1 = roof + 0.06, waist
    shrink = (y1 - y0) / (waist - roof)
    lo, hi = back - tail * shrink * 0.9 + 0.08, front + rake * shrink * 0.9 - 0.06
    panes = 2 if body != 3 else 1
    for i in range(panes):
        a, b = i / panes, (i + 1) / panes
        top = (back + 0.05 + (front - back - 0.08) * a + 0.015, back + 0.05 + (front - back - 0.08) * b - 0.02)
        low = (lo + (hi - lo) * a + 0.02, lo + (hi - lo) * b - 0.03)
        window = polygon((low[0], y1), (top[0], y0), (top[1], y0), (low[1], y1))
        parts.add(window, theme.dark.scaled(1.3), bevel=-0.8, gloss=0.6)
    if body == 3:
        parts.add(box(-w + 0.04, waist - u(0.05, 0.14), -0.2, waist + 0.08), theme.main.scaled(0.8))
    parts.add(rod((lo + hi) / 2, waist + 0.03, (lo + hi) / 2, floor - 0.06, 0.025), theme.main.scaled(0.5), bevel=0)
    parts.add(rod((lo + hi) / 2 - 0.2, waist + 0.1, (lo + hi) / 2 - 0.08, waist + 0.1, 0.04), theme.light)
    if rng.random() < 0.5:
        stripe = rod(-w + 0.04, (waist + floor) / 2 + 0.06, w - 0.05, (waist + floor) / 2 + 0.06, u(0.04, 0.1))
        parts.add(stripe, theme.second, bevel=0.2)
    parts.add(box(-w - 0.02, floor - 0.1, w + 0.02, floor + 0.02, 0.04), theme.dark)
    parts.add(oval(w - 0.06, waist + 0.24, 0.07, 0.06), theme.light, "ball", 0.6)
    parts.add(box(-w, waist + 0.14, -w + 0.07, waist + 0.26, 0.02), theme.accent, "ball", 0.3)
    x, spokes = u(0.5, 0.6), int(rng.integers(0, 4))
    for wheel in (-x, x):
        parts.add(oval(wheel, floor, r * 1.2, r * 1.2, arc=(0.5, 1.0)), theme.dark, bevel=0)
        parts += _wheel(wheel, floor + 0.03, r, theme, spokes)
    return parts


def bus(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a bus with one or two decks: rows of windows, stripe, door, wheels."""
    u = rng.uniform
    w, floor, r = u(0.88, 0.98), 0.5, u(0.14, 0.18)
    decks = 2 if rng.random() < 0.35 else 1
    roof = -0.62 if decks == 2 else u(-0.35, -0.2)
    parts = Parts()
    parts.add(box(-w, roof, w, floor, u(0.04, 0.12)), theme.main, "flat", 0.3)
    panes, tall = int(rng.integers(4, 8)), u(0.2, 0.27)
    for deck in range(decks):
        y = roof + 0.1 + deck * 0.48
        edge = np.linspace(-w + 0.06, w - 0.04, panes + 1)
        for i in range(panes):
            window = box(edge[i] + 0.02, y, edge[i + 1] - 0.02, y + tall, 0.02)
            parts.add(window, theme.dark.scaled(1.4), bevel=-0.7, gloss=0.6)
    parts.add(box(-w, floor - 0.3, w, floor - 0.3 + u(0.05, 0.13)), theme.second, bevel=0.2)
    parts.add(box(w - 0.34, floor - 0.52, w - 0.16, floor - 0.03), theme.dark, bevel=-0.5, gloss=0.4)
    parts.add(oval(w - 0.06, floor - 0.12, 0.05, 0.06), theme.light, "ball", 0.6)
    parts.add(box(-w, floor - 0.06, w, floor + 0.02), theme.dark)
    for x in (-w * 0.6, w * 0.42):
        parts += _wheel(x, floor + 0.02, r, theme, 0)
    return parts


def boat(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a boat: hull with a stripe, and mast with sails and flag, or cabin with funnel."""
    u = rng.uniform
    deck, keel, bow = u(0.25, 0.4), u(0.68, 0.82), u(0.8, 0.95)
    stern = -u(0.6, 0.85)
    rim = spline((bow, deck - 0.06), (0.0, deck + 0.03), (stern, deck), closed=False)
    bottom = spline((stern + 0.1, keel), (0.2, keel + 0.02), (bow - 0.35, keel - 0.08), closed=False)
    hull = join(rim, bottom)
    parts = Parts()
    if rng.random() < 0.55:
        mast, top = u(-0.1, 0.15), u(-0.95, -0.8)
        parts.add(rod(mast, top, mast, deck + 0.05, 0.06, 0.07), theme.dark, "tube")
        swell = u(0.02, 0.15)
        head, foot = (mast - 0.04, top + 0.05), (stern + 0.08, deck - 0.12)
        leech = spline(foot, (stern * 0.6 - swell, (top + deck) / 2), head, closed=False)
        main = join(polygon(head, (mast - 0.04, deck - 0.12), foot), leech)
        parts.add(main, theme.main, "tube", 0.0)
        if rng.random() < 0.8:
            jib = polygon((mast + 0.06, top + 0.15), (mast + 0.06, deck - 0.1), (bow - 0.1, deck - 0.1))
            parts.add(jib, theme.accent, "tube", 0.0)
        parts.add(polygon((mast, top), (mast - 0.22, top + 0.06), (mast, top + 0.12)), theme.accent)
    else:
        x0, x1, roof = u(-0.5, -0.35), u(0.2, 0.4), u(-0.2, -0.02)
        fx = u(x0 + 0.2, x1 - 0.3)
        parts.add(box(fx, roof - u(0.3, 0.5), fx + u(0.15, 0.25), roof + 0.05), theme.accent, "tube")
        if rng.random() < 0.5:
            parts.add(box(x0 + 0.12, roof - 0.22, x1 - 0.2, roof + 0.05, 0.03), theme.light)
        parts.add(box(x0, roof, x1, deck + 0.05, 0.03), theme.second)
        for x in np.linspace(x0 + 0.12, x1 - 0.12, int(rng.integers(2, 5))):
            parts.add(oval(x, (roof + deck) / 2, 0.06, 0.07), theme.dark, bevel=-0.5, gloss=0.5)
    parts.add(hull, theme.main if rng.random() < 0.5 else theme.second, "bar", 0.2)
    stripe = stroke(
        spline((bow - 0.06, deck + 0.04), (0.0, deck + 0.12), (stern + 0.03, deck + 0.1), closed=False), u(0.05, 0.1)
    )
    parts.add(stripe, theme.light, bevel=0.2)
    return parts


def aeroplane(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw an aeroplane from the side: tail fin, far and near wing, fuselage, windows, cockpit, engines."""
    u = rng.uniform
    h, nose, end = u(0.14, 0.22), u(0.85, 0.96), -u(0.8, 0.92)
    sweep = u(0.2, 0.4)
    parts = Parts()
    far_wing = polygon((0.2, -h * 0.4), (-sweep, -h - u(0.3, 0.5)), (-sweep - 0.18, -h - 0.3), (-0.15, -h * 0.4))
    parts.add(far_wing, theme.second.scaled(0.7))
    fin = polygon(
        (end + 0.38, -h * 0.6), (end + 0.02, -h - u(0.3, 0.48)), (end - 0.08, -h - 0.3), (end + 0.05, -h * 0.1)
    )
    parts.add(fin, theme.second)
    body = spline(
        (nose, 0.02), (nose - 0.2, -h * 0.85), (0.2, -h), (-0.4, -h * 0.95), (end, -h * 0.5), (end - 0.02, -h * 0.2),
        (-0.4, h * 0.8), (0.3, h), (nose - 0.15, h * 0.8),
    )  # fmt: skip
    parts.add(body, theme.main, "bar", 0.4)
    for x in np.linspace(-0.45, 0.5, int(rng.integers(5, 10))):
        parts.add(oval(x, -h * 0.35, 0.035, 0.045), theme.dark, bevel=0, gloss=0.4)
    cockpit = polygon((nose - 0.22, -h * 0.7), (nose - 0.08, -h * 0.3), (nose - 0.26, -h * 0.25))
    parts.add(cockpit, theme.dark, gloss=0.6)
    parts.add(leaf(end + 0.28, -h * 0.2, end - 0.12, 0.02, 0.14), theme.second)
    near_wing = polygon((0.28, h * 0.3), (-0.05 - sweep, h + u(0.3, 0.55)), (-sweep - 0.28, h + 0.35), (-0.22, h * 0.3))
    parts.add(near_wing, theme.second, gloss=0.3)
    if rng.random() < 0.7:
        parts.add(box(-0.12, h + 0.06, 0.2, h + 0.2, 0.07), theme.accent, "bar", 0.3)
        parts.add(oval(0.19, h + 0.13, 0.03, 0.07), theme.dark)
    return parts
