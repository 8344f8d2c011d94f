"""Open land: coast, desert, field."""

from __future__ import annotations

import numpy as np

from toyworld.outline import Points, limb, lump, oval, polygon, rod, smooth
from toyworld.places.view import View
from toyworld.texture import hsv, noise, plain, random_colour, soft_step


def coast(v: View) -> None:
    """Water to the horizon with waves and a path of light, a curved shore with foam, islands, boats, rocks."""
    u = v.u
    v.sky()
    for _ in range(int(v.rng.integers(0, 3))):
        x, w = u(0, 1), u(0.1, 0.35)
        outline = lump(v.rng, x, v.horizon, w, u(0.03, 0.12), 0.2)
        v.add(np.minimum(outline, [9, v.horizon + 0.01]), v.weather.far(v.paint(), u(0.5, 1)))
    water = hsv(u(0.45, 0.65), u(0.15, 0.75), u(0.35, 0.85)) if v.rng.random() < 0.7 else random_colour(v.rng)
    deep = (water + 2 * v.weather.horizon) / 3
    v.floor(water, deep, 0.15, 2.0)
    depth = 0.05 / (np.maximum(v.y - v.horizon, 0) + 0.01)
    swell = noise(v.x * depth * 0.5, depth * 1.6 + 0 * v.x, v.offset())
    crest = soft_step(swell - u(0.58, 0.68), 0.06) * (v.y > v.horizon) * np.float32(u(0.3, 0.8))
    v.cover(np.broadcast_to(v.weather.horizon, v.layer.rgb.shape), crest)
    if v.rng.random() < 0.5:
        sx, spread = u(0.2, 0.8), u(0.03, 0.1)
        path = np.exp(-(((v.x - sx) / (spread * (1 + 3 * (v.y - v.horizon)))) ** 2)) * (v.y > v.horizon)
        v.cover(np.ones_like(v.layer.rgb), path * (swell > 0.5) * 0.8)
    for _ in range(int(v.rng.integers(0, 3))):
        d = u(0, 1)
        v.thing("boat", u(0.05, 0.95), v.horizon + 0.02 + 0.12 * (1 - d), 0.06 + 0.16 * (1 - d), d * 0.5)
    side = v.rng.random() < 0.5
    a, b, c = u(0.7, 0.95), u(0.65, 1.0), u(v.horizon + 0.12, 0.85)
    shore = [(-0.1, c), (0.3, c + (a - c) * 0.6), (0.65, b), (1.1, 1.05)]
    line = smooth(*shore, closed=False, steps=12)
    if side:
        line = line * (-1, 1) + (1, 0)
    sand = v.paint()
    closed = np.concatenate([line, [[1.1 if not side else -0.1, 1.2], [-0.1 if not side else 1.1, 1.2]]])
    v.add(_lower(closed, -0.02), plain(np.ones(3, np.float32)), bevel=0)
    v.add(_lower(closed, 0.012), sand.darker(0.7), bevel=0)
    v.add(_lower(closed, 0.045), sand, bevel=0.2)
    for _ in range(int(v.rng.integers(0, 6))):
        y = u(0.8, 1.0)
        v.add(lump(v.rng, u(0, 1), y, u(0.03, 0.12), u(0.02, 0.07)), v.paint(), "ball", 1.0, 0.3)


def _lower(outline: Points, by: float) -> Points:
    return outline + np.array([0.0, by])


def desert(v: View) -> None:
    """Dunes behind one another, each with a lit and a shaded side along a sharp crest, ripples, cacti, rocks."""
    u = v.u
    v.sky()
    paint, count = v.paint(), int(v.rng.integers(3, 6))
    if v.rng.random() < 0.4:
        x = u(0.1, 0.8)
        mesa = polygon(
            (x - 0.2, v.horizon + 0.1),
            (x - 0.12, v.horizon - u(0.06, 0.15)),
            (x + 0.13, v.horizon - 0.1),
            (x + 0.22, v.horizon + 0.1),
        )
        v.add(mesa, v.weather.far(v.paint(), 0.7))
    lit_left = v.rng.random() < 0.5
    for i in range(count):
        near = (i + 1) / count
        base = v.horizon + (1 - v.horizon) * (i / count) ** 1.2 + 0.05
        top, px = base - u(0.06, 0.2) * (0.5 + near), u(0.1, 0.9)
        left = smooth((-0.3, base + 0.08), (px - 0.35, base - 0.02), (px, top), closed=False)
        right = smooth((px, top), (px + 0.3, base + 0.0), (1.3, base + 0.1), closed=False)
        seen = v.weather.far(paint, 1 - near)
        whole = np.concatenate([left, right, [[1.3, 1.2], [-0.3, 1.2]]])
        v.add(whole, seen.darker(1.1), bevel=0.1)
        tail = smooth(
            (px, top), (px + u(-0.08, 0.08), (top + base) / 2 + 0.05), (px + u(-0.2, 0.2), 1.15), closed=False
        )
        if lit_left:
            shade = np.concatenate([tail, [[1.3, 1.2]], right[::-1]])
        else:
            shade = np.concatenate([tail, [[-0.3, 1.2]], left])
        v.add(shade, seen.darker(u(0.55, 0.75)), bevel=0)
        if near > 0.5:
            for y in np.arange(base + 0.06, 1.0, 0.035 + 0.03 * near):
                x0 = u(-0.1, 0.6)
                curve = smooth((x0, y), (x0 + 0.15, y - 0.012), (x0 + 0.35, y + 0.01), closed=False)
                v.add(limb(curve, (0.002, 0.008, 0.002)), seen.darker(0.6), bevel=0)
    for _ in range(int(v.rng.integers(0, 4))):
        foot = u(v.horizon + 0.2, 1.0)
        _cactus(v, u(0.05, 0.95), foot, 0.08 + 0.35 * (foot - v.horizon))


def _cactus(v: View, x: float, foot: float, h: float) -> None:
    paint, w = v.paint().darker(0.8), h * 0.2
    for side in (-1, 1):
        if v.rng.random() < 0.75:
            y = foot - h * v.u(0.3, 0.5)
            arm = smooth((x, y), (x + side * h * 0.25, y), (x + side * h * 0.28, y - h * 0.3), closed=False)
            v.add(limb(arm, w * 0.8), paint, "tube", 1.0, 0.2)
    v.add(
        np.concatenate(
            [
                rod(x, foot, x, foot - h, w)[:0],
                oval(x, foot - h, w / 2, w / 2, arc=(0.5, 1.0)),
                polygon((x + w / 2, foot), (x - w / 2, foot)),
            ]
        ),
        paint,
        "tube",
        1.0,
        0.2,
    )


def field(v: View) -> None:
    """Rows of crop that run to a vanishing point, hedges, a farm or single trees, bales, a fence in front."""
    u = v.u
    v.sky()
    if v.rng.random() < 0.6:
        v.add(v.ridge(v.horizon + 0.02, u(0.03, 0.1), 0.4), v.weather.far(v.paint(), 0.8))
    paint = v.paint()
    v.floor(paint.colour, v.weather.far(paint, 0.6).colour, 0.3)
    below = np.maximum(v.y - v.horizon, 1e-3)
    vx, rows = u(-0.3, 1.3), u(6, 14)
    strip = (v.x - vx) / (below + 0.02) * np.float32(rows / 8)
    furrow = np.abs(strip % 1 - 0.5) * 2
    fade = np.clip(below * rows * 0.9, 0, 1)
    crop = paint.other * np.float32(u(0.55, 0.9)) * v.weather.tint
    lumps = noise(v.x / (below + 0.1) * 0.25, 0.1 / (below + 0.02) + 0 * v.x, v.offset())
    row = soft_step(furrow - u(0.35, 0.6) + 0.5 * (lumps - 0.5), 0.12) * fade * (v.y > v.horizon)
    v.cover(crop * (0.75 + 0.5 * lumps)[..., None], row * 0.9)
    hedge = v.paint().darker(0.7)
    x = u(-0.1, 0.4)
    while x < 1.1 and v.rng.random() < 0.95:
        w = u(0.03, 0.1)
        v.add(lump(v.rng, x, v.horizon, w, u(0.015, 0.04), 0.15), v.weather.far(hedge, 0.5), "ball", 0.6)
        x += w * u(1, 3)
    for name in v.rng.permutation(["house", "tree", "tree"])[: int(v.rng.integers(0, 4))]:
        v.thing(str(name), u(0.05, 0.95), v.horizon + u(0.01, 0.05), u(0.1, 0.22), 0.45)
    straw = v.paint()
    for _ in range(int(v.rng.integers(0, 5))):
        y = u(v.horizon + 0.06, 0.9)
        r = 0.015 + 0.11 * (y - v.horizon)
        cx = u(0, 1)
        v.add(oval(cx, y, r * 1.4, r), straw.darker(0.75), "bar", 1.0, 0.3)
        v.add(oval(cx + r * 0.9, y, r * 0.6, r), straw, "flat", 1.0, 0.2)
    if v.rng.random() < 0.4:
        wood, y, slope = v.paint().darker(0.8), u(0.82, 0.95), u(-0.08, 0.08)
        for rail in (-0.05, -0.11):
            v.add(rod(-0.1, y + rail, 1.1, y + rail + slope, 0.018), wood, "bar", 0.6)
        for x in np.arange(u(0, 0.15), 1.1, u(0.14, 0.22)):
            v.add(rod(x, y + slope * x + 0.04, x, y + slope * x - 0.15, 0.03), wood, "tube", 0.6)
