"""High and wooded land: forest, mountain."""

from __future__ import annotations

import numpy as np

from toyworld.outline import Points, limb, lump, polygon, rod, smooth
from toyworld.places.view import View
from toyworld.texture import Paint, noise, plain, soft_step


def forest(v: View) -> None:
    """Trunks in several depths from the ground up out of the picture, foliage over them, undergrowth, light between."""
    u = v.u
    v.horizon = u(0.55, 0.75)
    v.sky()
    leaves, bark, soil = v.paint(), v.paint().darker(0.7), v.paint()
    far = v.weather.far(leaves, 0.85)
    t = noise(v.x * 0.6, v.y * 0.6, v.offset())
    cover = soft_step(t - u(0.3, 0.5) + 0.5 * (v.y - 0.4), 0.12)
    v.cover(far.at(v.x, v.y) * v.weather.tint, np.clip(cover, 0, 1) * 0.95)
    v.floor(soil.colour, v.weather.far(soil, 0.5).colour, 0.7)
    conifers = v.rng.random() < 0.4
    for depth in (0.8, 0.45, 0.0):
        count = int(v.rng.integers(3, 5) * (1 + depth))
        foot = v.horizon + (1 - v.horizon) * (1 - depth) ** 1.3 * 0.95
        seen, dark = v.weather.far(bark, depth), v.weather.far(leaves, depth)
        for x in (np.arange(count) + v.rng.uniform(-0.3, 0.3, count) + 0.5) / count:
            w, y = (0.02 + 0.07 * (1 - depth)) * u(0.6, 1.3), foot + u(-0.03, 0.03)
            bend = u(-0.04, 0.04)
            spine = smooth((x, y), (x + bend, y * 0.5), (x + bend * 1.5, -0.1), closed=False)
            v.add(limb(spine, (w * 1.8, w, w * 0.9, w * 0.7)), seen, "tube", 0.5, 0.15)
            if conifers:
                for k in range(3):
                    top, half = y * 0.7 - 0.2 * k, w * u(2.2, 3.2) * (1.2 - 0.25 * k)
                    v.add(
                        polygon((x, top - 0.24), (x + half, top), (x, top - 0.03), (x - half, top)),
                        dark,
                        "tube",
                        0.8,
                        0.2,
                    )
            else:
                for _ in range(2):
                    y0, side = u(0.15, 0.45), float(v.rng.choice([-1.0, 1.0]))
                    v.add(
                        rod(x + bend, y0, x + bend + side * u(0.06, 0.16), y0 - u(0.08, 0.2), w * 0.45, w * 0.15),
                        seen,
                        "tube",
                    )
        if not conifers:
            for _ in range(int(6 + 4 * depth)):
                r = u(0.06, 0.14) * (1.1 - 0.5 * depth)
                v.add(
                    lump(v.rng, u(-0.05, 1.05), u(-0.05, 0.2 + 0.12 * depth), r * 1.3, r, 0.2),
                    dark.darker(u(0.75, 1.15)),
                    "ball",
                    1.0,
                    0.2,
                )
    for _ in range(int(v.rng.integers(2, 7))):
        y = u(v.horizon + 0.08, 1.0)
        s = 0.02 + 0.1 * (y - v.horizon)
        v.add(lump(v.rng, u(0, 1), y, s * 1.5, s, 0.25), leaves.darker(u(0.6, 1.1)), "ball", 1.0, 0.3)
    if v.rng.random() < 0.35:
        for x in v.rng.uniform(-0.1, 0.9, 3):
            w = u(0.03, 0.08)
            beam = (v.x - x - 0.4 * v.y) / w
            v.cover(np.ones_like(v.layer.rgb), np.exp(-beam * beam) * 0.18 * (1 - v.y))


def mountain(v: View) -> None:
    """Chains of peaks behind one another, faces lit and in shade, snow or not, a lake or trees at their foot."""
    u = v.u
    v.horizon = u(0.5, 0.75)
    v.sky()
    rock, snowy, chains = v.paint(), v.rng.random() < 0.6, int(v.rng.integers(2, 4))
    for chain in range(chains):
        near = (chain + 1) / chains
        seen = v.weather.far(rock, 1 - near * 0.9)
        base = v.horizon + 0.12 * chain
        peaks = int(v.rng.integers(2, 5))
        order = v.rng.permutation(peaks)
        for k in order:
            x = (k + u(0.1, 0.9)) / peaks
            _peak(v, x, base, u(0.25, 0.5) * (1.15 - 0.45 * near), u(0.22, 0.42), seen, snowy and near < 0.95)
    paint = v.paint()
    v.horizon = min(0.9, v.horizon + 0.12 * (chains - 1) + u(0.02, 0.1))
    if v.rng.random() < 0.4:
        mirror = v.layer.rgb[::-1][int((1 - v.horizon) * len(v.layer.rgb)) :]
        start = round(v.horizon * len(v.layer.rgb))
        rows = min(len(v.layer.rgb) - start, len(mirror))
        v.layer.rgb[start : start + rows] = mirror[:rows] * np.float32(0.75) + v.weather.zenith * np.float32(0.15)
        ripple = noise(v.x * 0.2, v.y * 2.5, v.offset())
        v.cover(v.layer.rgb * 1.25, (v.y > v.horizon) * soft_step(ripple - 0.55, 0.1) * 0.8)
    else:
        v.floor(paint.colour, v.weather.far(paint, 0.3).colour, 0.6)
    wood = v.paint().darker(0.7)
    for x in v.rng.uniform(-0.05, 1.05, int(v.rng.integers(0, 14))):
        h, y = u(0.06, 0.14), v.horizon + u(0.0, 0.06)
        v.add(polygon((x, y - h), (x + h * 0.25, y), (x - h * 0.25, y)), wood, "tube", 0.8, 0.2)


def _peak(v: View, x: float, base: float, height: float, half: float, paint: Paint, snowy: bool) -> None:
    top = base - height
    left, right = _flank(v, x, top, x - half, base + 0.1), _flank(v, x, top, x + half, base + 0.1)
    ridge = _flank(v, x, top, x + v.u(-0.3, 0.3) * half, base + 0.1)
    lit, shaded = (right, left) if v.weather.light.direction[0] > 0 else (left, right)
    for side, factor in ((lit, 1.1), (shaded, 0.6)):
        v.add(np.concatenate([ridge, side[::-1]]), paint.darker(factor), bevel=0.15)
        if snowy:
            n = int(v.rng.integers(3, 6))
            cap = np.concatenate(
                [
                    ridge[: n + 1],
                    [(ridge[n] * 2 + side[n]) / 3 - (0, 0.05 * height)],
                    [(ridge[n] + 2 * side[n]) / 3 + (0, 0.06 * height)],
                    side[: n + 1][::-1],
                ]
            )
            v.add(cap, v.weather.far(plain(np.ones(3, np.float32)), 0.3).darker(0.5 + 0.5 * factor), bevel=0.1)


def _flank(v: View, x0: float, y0: float, x1: float, y1: float) -> Points:
    t = np.linspace(0, 1, 10)
    bump = v.rng.normal(0, 0.035, 10) * np.sin(t * np.pi)
    return np.stack([x0 + (x1 - x0) * (t + bump), y0 + (y1 - y0) * t], 1)
