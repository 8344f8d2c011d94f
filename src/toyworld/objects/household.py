"""Household items."""

from __future__ import annotations

import numpy as np

from toyworld.layer import Parts
from toyworld.outline import box, join, oval, polygon, rod, spline, stroke
from toyworld.texture import Theme, plain, random_color


def mug(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a mug: handle, body, rim, perhaps a band and steam."""
    u = rng.uniform
    top, base = u(-0.75, -0.4), u(0.6, 0.8)
    upper, lower, lens = u(0.4, 0.65), u(0.35, 0.6), u(0.1, 0.18)
    reach, thick = u(0.3, 0.45), u(0.1, 0.17)
    high, low = top + u(0.2, 0.35), base - u(0.15, 0.35)
    handle = spline(
        (upper - 0.08, high), (upper + reach * 0.75, high), (upper + reach, (high + low) / 2),
        (upper + reach * 0.6, low), (lower - 0.08, low), closed=False,
    )  # fmt: skip
    wall = join(polygon((-upper, top)), oval(0, base, lower, lens, arc=(0.5, 0.0)), polygon((upper, top)))
    parts = Parts()
    parts.add(stroke(handle, thick), theme.main if rng.random() < 0.6 else theme.second, "ball")
    parts.add(wall, theme.main, "tube", u(0.1, 0.5))
    if rng.random() < 0.55:
        y0 = u(top + 0.25, base - 0.4)
        y1 = y0 + u(0.15, 0.35)
        middle = (upper + lower) / 2
        band = join(oval(0, y0, middle, lens, arc=(0.5, 0.0)), oval(0, y1, middle, lens, arc=(0.0, 0.5)))
        parts.add(band, theme.second, "tube", bevel=0.3)
    parts.add(oval(0, top, upper, lens), theme.main.scaled(1.15), bevel=0.6)
    parts.add(oval(0, top, upper * 0.88, lens * 0.78), theme.main.scaled(0.45), bevel=-0.6)
    parts.add(oval(0, top + lens * 0.25, upper * 0.78, lens * 0.5), theme.dark, gloss=0.5)
    if rng.random() < 0.35:
        for x in (-0.2, 0.15):
            curl = spline(
                (x, top - 0.08), (x + 0.09, top - 0.2), (x - 0.03, top - 0.32), (x + 0.06, top - 0.45), closed=False
            )
            parts.add(stroke(curl, (0.02, 0.07, 0.02)), theme.light)
    return parts


def lamp(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a table lamp: stem or belly, foot, bulb, shade, perhaps a trim."""
    u = rng.uniform
    foot, base = u(0.25, 0.45), u(0.8, 0.92)
    top, height = u(-0.92, -0.7), u(0.5, 0.75)
    narrow, wide = u(0.18, 0.4), u(0.5, 0.72)
    hem = top + height
    glow = plain(np.array([1.0, 0.95, 0.75], np.float32) * np.float32(u(0.7, 1.0)))
    parts = Parts()
    if rng.random() < 0.5:
        parts.add(rod(0, hem - 0.1, 0, base, u(0.06, 0.12)), theme.accent, "tube", 0.4)
    else:
        w, y = u(0.2, 0.36), u(hem + 0.3, base - 0.2)
        belly = spline(
            (0.05, hem), (0.07, hem + 0.1), (w, y), (0.1, base), (-0.1, base), (-w, y), (-0.07, hem + 0.1), (-0.05, hem)
        )
        parts.add(belly, theme.second, "ball", 0.4)
    stand = join(oval(0, base - 0.04, foot, u(0.06, 0.14), arc=(0.5, 1.0)), oval(0, base, foot, 0.05, arc=(0.0, 0.5)))
    parts.add(stand, theme.accent, "ball", 0.3)
    parts.add(oval(0, hem - 0.01, 0.12, 0.13), glow, "ball", 0.6)
    sag = u(0.0, 0.1)
    lower = oval(0, hem, wide, sag + 0.01, arc=(0.0, 0.5))
    cone = join(polygon((-wide, hem), (-narrow, top), (narrow, top), (wide, hem)), lower)
    parts.add(cone, theme.main, "tube", 0.05)
    if rng.random() < 0.6:
        lower = oval(0, hem - 0.02, wide, sag + 0.01, arc=(0.0, 0.5))
        upper = oval(0, hem - 0.12, wide * 0.95, sag + 0.01, arc=(0.5, 0.0))
        parts.add(join(lower, upper), theme.accent, "tube")
    parts.add(box(-0.04, top - 0.08, 0.04, top), theme.dark, "ball")
    return parts


def bottle(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a bottle: body, perhaps a label, cap, and a highlight at one side."""
    u = rng.uniform
    w, neck, base = u(0.22, 0.42), u(0.08, 0.14), u(0.82, 0.95)
    top, shoulder = u(-0.85, -0.65), u(-0.25, 0.15)
    waist = w * u(0.75, 1.05)
    right = spline(
        (neck, top), (neck, (top + shoulder) / 2 - 0.06), (w * 0.9, shoulder), (w, shoulder + 0.12),
        (waist, (shoulder + base) / 2), (w, base - 0.12), (w * 0.85, base), closed=False,
    )  # fmt: skip
    parts = Parts()
    parts.add(join(right, (right * (-1, 1))[::-1]), theme.main, "tube", u(0.2, 0.6))
    y0, y1 = shoulder + u(0.12, 0.25), base - u(0.1, 0.25)
    if rng.random() < 0.85:
        lw = min(w, waist) * u(0.88, 1.0)
        parts.add(box(-lw, y0, lw, y1), theme.second, "tube", 0.02, bevel=0.5)
        y = (y0 + y1) / 2
        badge = (
            oval(0, y, lw * 0.55, (y1 - y0) * 0.28)
            if rng.random() < 0.5
            else box(-lw * 0.6, y - 0.06, lw * 0.6, y + 0.06)
        )
        parts.add(badge, theme.accent, "flat", bevel=0.3)
    parts.add(box(-neck * 1.15, top - u(0.06, 0.16), neck * 1.15, top + 0.05, 0.02), theme.accent, "tube", 0.3)
    parts.add(rod(-w * 0.62, shoulder + 0.08, -w * 0.62, base - 0.2, 0.05, 0.03), theme.light, bevel=0, gloss=0.3)
    return parts


def clock(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a clock: an alarm clock with bells, a case with a gable or a pendulum clock; dial and two hands."""
    u = rng.uniform
    r = u(0.5, 0.64)
    style = int(rng.integers(3))
    parts = Parts()
    if style == 0:
        for side in (-1, 1):
            parts.add(rod(side * r * 0.45, r * 0.7, side * r * 0.75, r + 0.28, 0.14, 0.07), theme.dark, "ball")
            parts.add(oval(side * r * 0.55, -r - 0.02, 0.24, 0.17, side * 0.6, (0.5, 1.0)), theme.accent, "ball", 0.5)
        parts.add(rod(0, -r - 0.24, 0, -r + 0.1, 0.07), theme.dark, "tube")
        parts.add(oval(0, 0, r, r), theme.main, "ball", 0.3)
    elif style == 1:
        w = r + u(0.05, 0.15)
        parts.add(polygon((-w - 0.05, -r), (0, -r - u(0.2, 0.35)), (w + 0.05, -r)), theme.second)
        parts.add(box(-w, -r, w, r + 0.15, 0.04), theme.main)
        parts.add(box(-w - 0.1, r + 0.13, w + 0.1, r + 0.3, 0.03), theme.second)
    else:
        w = r * 0.55
        parts.add(box(-w, 0, w, 0.86), theme.second)
        swing = u(-0.2, 0.2)
        parts.add(rod(0, r * 0.8, swing, 0.72, 0.04), theme.light)
        parts.add(oval(swing, 0.74, 0.09, 0.09), theme.accent, "ball", 0.6)
        parts.add(oval(0, -0.12, r, r), theme.main, "ball", 0.3)
    cy = -0.12 if style == 2 else 0.0
    dial = theme.light if rng.random() < 0.7 else plain(random_color(rng, (0.25, 0.6)))
    ink = theme.dark if dial is theme.light else theme.light
    parts.add(oval(0, cy, r * 0.82, r * 0.82), dial, bevel=-0.8)
    for hour in range(12):
        a = hour * np.pi / 6
        inner = 0.5 if hour == 0 else (0.62 if hour % 3 == 0 else 0.68)
        s, c = r * np.sin(a), -r * np.cos(a)
        parts.add(rod(s * inner, cy + c * inner, s * 0.75, cy + c * 0.75, 0.09 if hour == 0 else 0.045), ink, bevel=0)
    for length, width in ((0.38, 0.08), (0.62, 0.055)):
        a = u(0, 2 * np.pi)
        parts.add(rod(0, cy, length * r * np.sin(a), cy - length * r * np.cos(a), width, width / 2), ink, bevel=0)
    parts.add(oval(0, cy, 0.045, 0.045), theme.accent, "ball", 0.5)
    return parts


def tvmonitor(rng: np.random.Generator, theme: Theme) -> Parts:
    """Draw a flat screen on a foot, or an old television set with antenna and knobs."""
    u = rng.uniform
    w, h = u(0.65, 0.92), u(0.45, 0.62)
    cy, rim = -0.2, u(0.05, 0.1)
    case = theme.dark if rng.random() < 0.5 else theme.main
    parts = Parts()
    old = rng.random() < 0.35
    if old:
        for x in (-0.3, 0.25):
            parts.add(rod(0, cy - h, x, cy - h - 0.35, 0.04, 0.025), theme.dark)
        for x in (-1, 1):
            parts.add(rod(x * w * 0.6, cy + h, x * w * 0.75, cy + h + 0.25, 0.08), theme.dark)
    else:
        parts.add(rod(0, cy + h - 0.05, 0, cy + h + 0.25, u(0.1, 0.22)), case.scaled(0.8), "tube")
        parts.add(oval(0, cy + h + 0.27, u(0.28, 0.45), 0.07), case, "ball")
    parts.add(box(-w, cy - h, w, cy + h, 0.06), case, gloss=0.2)
    right = w * 0.55 if old else w - rim
    screen = theme.second if rng.random() < 0.5 else plain(random_color(rng, (0.2, 0.9)))
    parts.add(box(-w + rim, cy - h + rim, right, cy + h - rim, 0.1 if old else 0.01), screen, bevel=-1.0, gloss=0.5)
    shine = polygon(
        (-w + rim * 1.5, cy + h * 0.3), (-w + rim * 1.5, cy - h + rim * 1.5), (-w * 0.2, cy - h + rim * 1.5)
    )
    parts.add(shine, screen.scaled(1.3), bevel=0)
    if old:
        for y in (-0.5, -0.05):
            parts.add(oval(w * 0.77, cy + y * h, 0.08, 0.08), theme.light, "ball")
    return parts
