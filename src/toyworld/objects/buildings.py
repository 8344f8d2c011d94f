"""Buildings."""

from __future__ import annotations

import numpy as np

from toyworld.layer import Parts
from toyworld.outline import box, oval, polygon
from toyworld.texture import Theme


def house(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a house: perhaps a chimney and a side wall, front wall, roof, door, windows."""
    u = rng.uniform
    half, eaves, base = u(0.5, 0.72), u(-0.25, 0.1), u(0.7, 0.85)
    ridge, depth = eaves - u(0.4, 0.75), u(0.0, 0.35)
    left, right = -half - depth / 2, half - depth / 2
    parts = Parts()
    if rng.random() < 0.75:
        x, w = u(left + 0.15, right - 0.35), u(0.14, 0.24)
        parts.add(box(x, ridge - u(0.0, 0.15), x + w, eaves), theme.accent)
    if depth > 0.08:
        shift = u(0.02, 0.12)
        side_wall = polygon(
            (right, eaves), (right + depth, eaves - shift), (right + depth, base - shift), (right, base)
        )
        parts.add(side_wall, theme.main.scaled(0.6))
        side_roof = polygon(
            ((left + right) / 2, ridge), ((left + right) / 2 + depth, ridge - shift),
            (right + depth + 0.06, eaves - shift + 0.04), (right + 0.06, eaves + 0.04),
        )  # fmt: skip
        parts.add(side_roof, theme.second.scaled(0.7))
    parts.add(box(left, eaves, right, base), theme.main)
    over = u(0.05, 0.16)
    flat = u(0.0, 0.5) if rng.random() < 0.4 else 0.0
    middle = (left + right) / 2
    roof = polygon(
        (left - over, eaves + 0.05), (middle - flat * half, ridge), (middle + flat * half, ridge),
        (right + over, eaves + 0.05),
    )  # fmt: skip
    parts.add(roof, theme.second)
    if flat == 0 and rng.random() < 0.6:
        parts.add(oval(middle, (eaves + 2 * ridge) / 3 + 0.1, 0.09, 0.09), theme.dark, gloss=0.4)
    door_width, door_top = u(0.2, 0.3), base - u(0.34, 0.48)
    slots = 3 if right - left > 1.15 else 2
    door = int(rng.integers(slots))
    for slot in range(slots):
        x = left + (slot + 0.5) * (right - left) / slots
        if slot == door:
            parts.add(box(x - door_width / 2, door_top, x + door_width / 2, base), theme.accent)
            parts.add(oval(x + door_width * 0.3, (door_top + base) / 2 + 0.04, 0.03, 0.03), theme.light, "ball")
            continue
        w, y = u(0.1, 0.15), eaves + u(0.18, 0.3)
        h = u(0.1, 0.17)
        parts.add(box(x - w - 0.03, y - h - 0.03, x + w + 0.03, y + h + 0.03), theme.light)
        parts.add(box(x - w, y - h, x + w, y + h), theme.dark, gloss=0.5)
        parts.add(box(x - 0.015, y - h, x + 0.015, y + h), theme.light, bevel=0)
        parts.add(box(x - w, y - 0.015, x + w, y + 0.015), theme.light, bevel=0)
    return parts
