"""Built places: city, road, room."""

from __future__ import annotations

import numpy as np

from toyworld.outline import Points, box, limb, oval, polygon, rod
from toyworld.places.view import View
from toyworld.texture import Paint, plain, random_colour, random_paint


def city(v: View) -> None:
    """Towers in rows behind one another with grids of windows, roofs, aerials, a street or a quay in front."""
    u = v.u
    v.horizon = u(0.7, 0.9)
    v.sky()
    for depth in (0.9, 0.5, 0.0)[int(v.rng.random() < 0.3) :]:
        x = u(-0.1, 0.0)
        while x < 1.0:
            w = u(0.1, 0.24) * (1.25 - 0.6 * depth)
            top = v.horizon - u(0.12, 0.6) * (0.75 + 0.35 * depth)
            _tower(v, x, x + w, top, depth)
            x += w + max(0.0, u(-0.06, 0.08))
    near = plain(random_colour(v.rng, (0.2, 0.6)))
    v.floor(near.colour, v.weather.far(near, 0.2).colour, 0.3)
    if v.rng.random() < 0.6:
        for x in np.arange(u(0, 0.1), 1.0, u(0.13, 0.25)):
            v.add(
                rod(x, (v.horizon + 1) / 2, x + 0.06, (v.horizon + 1) / 2, 0.012),
                plain(np.ones(3, np.float32)),
                bevel=0,
            )
    for _ in range(int(v.rng.integers(0, 4))):
        name = str(v.rng.choice(["car", "bus", "tree"]))
        v.thing(name, u(0.05, 0.95), u(v.horizon + 0.04, 0.99), u(0.1, 0.17) * (1.6 if name == "tree" else 1.0))


def _tower(v: View, x0: float, x1: float, top: float, depth: float) -> None:
    u, w = v.u, x1 - x0
    wall = v.weather.far(plain(random_colour(v.rng, (0.25, 0.9))), depth)
    if v.rng.random() < 0.25:
        v.add(rod((x0 + x1) / 2, top, (x0 + x1) / 2, top - u(0.05, 0.12), 0.012, 0.004), wall.darker(0.6))
    style = int(v.rng.integers(4))
    if style == 0:
        v.add(polygon((x0, top), ((x0 + x1) / 2, top - u(0.05, 0.15)), (x1, top)), wall.darker(0.75))
    elif style == 1:
        v.add(box(x0 + w * 0.2, top - u(0.03, 0.08), x1 - w * 0.2, top + 0.01), wall.darker(0.85))
    v.add(box(x0, top, x1, v.horizon + 0.02), wall, "flat", 0.6, 0.2)
    side = x1 - w * u(0.0, 0.35)
    v.add(
        polygon((side, top), (x1, top + 0.01), (x1, v.horizon + 0.02), (side, v.horizon + 0.02)),
        wall.darker(0.65),
        bevel=0,
    )
    columns, rows = max(2, int(w * (20 + 10 * depth))), max(3, int((v.horizon - top) * (16 + 10 * depth)))
    pane, floor = (side - x0) / columns, (v.horizon - top) / rows
    if pane < 0.012:
        return
    bands = v.rng.random() < 0.25
    kinds = [v.weather.far(v.weather.glow(v.rng), depth * 0.7) for _ in range(3)]
    for row in range(rows):
        y = top + (row + 0.3) * floor
        if bands:
            v.add(box(x0 + 0.1 * pane, y, side - 0.1 * pane, y + floor * 0.5), kinds[row % 3], bevel=0)
            continue
        for kind in kinds:
            for c in np.flatnonzero(v.rng.random(columns) < 0.6):
                px = x0 + (c + 0.25) * pane
                _flat(v, px, y, px + pane * 0.55, y + floor * 0.55, kind)


def _flat(v: View, x0: float, y0: float, x1: float, y1: float, paint: Paint) -> None:
    """Fill an upright rectangle at once: a tower has too many windows for the brush."""
    side = len(v.layer.rgb)
    rows = slice(max(0, round(y0 * side)), max(0, round(y1 * side)))
    columns = slice(max(0, round(x0 * side)), max(0, round(x1 * side)))
    v.layer.rgb[rows, columns] = np.clip(paint.colour * v.weather.tint, 0, 1)


def road(v: View) -> None:
    """A road that runs to the horizon, straight or bent: edge lines, dashes, posts or trees along it, cars."""
    u = v.u
    v.sky()
    if v.rng.random() < 0.6:
        v.add(v.ridge(v.horizon + 0.02, u(0.04, 0.18), 0.45), v.weather.far(v.paint(), 0.75))
    land = v.paint()
    v.floor(land.colour, v.weather.far(land, 0.6).colour, 0.6)
    vx, foot, wide, bend = u(0.25, 0.75), u(0.25, 0.75), u(0.25, 0.45), u(-0.35, 0.35)
    asphalt = plain(random_colour(v.rng, (0.25, 0.65)) * np.float32(0.5) + np.float32(u(0.05, 0.3)))
    line = plain(np.array([1.0, 1.0, u(0.4, 1.0)], np.float32))

    def at(t: float | np.ndarray, offset: float) -> Points:
        """Return the point of the road at t (0 horizon, 1 the lower edge), offset -1..1 across."""
        t = np.asarray(t, np.float64)
        middle = vx + (foot - vx) * t + bend * t * (1 - t)
        return np.stack([middle + offset * wide * t, v.horizon + (1.02 - v.horizon) * t], -1)

    t = np.concatenate([np.linspace(0.004, 0.2, 8), np.linspace(0.25, 1.0, 12)])
    shoulder = v.paint()
    for width, paint in ((1.25, shoulder), (1.0, asphalt)):
        v.add(np.concatenate([at(t, -width), at(t, width)[::-1]]), v.weather.far(paint, 0.15), bevel=0.1)
    if v.rng.random() < 0.8:
        for edge in (-0.9, 0.9):
            v.add(np.concatenate([at(t, edge - 0.03), at(t, edge + 0.03)[::-1]]), line, bevel=0)
    lanes = (0.0,) if v.rng.random() < 0.7 else (-0.3, 0.3)
    z = u(1.0, 1.3)
    while z < 14:
        span = 1 / np.array([z, z + 0.12 * z**0.5 + 0.18])
        for lane in lanes:
            v.add(np.concatenate([at(span, lane - 0.035), at(span, lane + 0.035)[::-1]]), line, bevel=0)
        z += 0.75
    sides = [s for s in (-1.0, 1.0) if v.rng.random() < 0.75]
    kind = int(v.rng.integers(3))
    for z in 1 / np.linspace(0.09, 0.95, 7):
        for s in sides:
            x, y = at(1 / z, s * 1.45)
            if kind == 0:
                h, w = 0.75 / z, 0.035 / z
                v.add(rod(x, y, x, y - h, w), plain(random_colour(v.rng, (0.2, 0.4))), "tube", 0.5)
                v.add(rod(x, y - h, x - s * 0.3 / z, y - h * 1.03, w * 0.8), plain(np.full(3, 0.3, np.float32)))
            elif kind == 1:
                v.thing("tree", x, y, 0.6 / z, min(0.8, z / 10))
            else:
                v.add(rod(x, y, x, y - 0.16 / z, 0.05 / z), line, "tube", 0.5)
    for _ in range(int(v.rng.integers(0, 3))):
        t0 = u(0.12, 0.6)
        x, y = at(t0, float(v.rng.choice([-0.5, 0.5])))
        v.thing("car", float(x), float(y) + 0.02 * t0, 0.4 * t0, 0.3 * (1 - t0))


def room(v: View) -> None:
    """An inside: back wall, side walls, floor and ceiling in perspective, window, picture, furniture."""
    u = v.u
    light = v.weather.light
    x0, x1, y0, y1 = u(0.1, 0.28), u(0.72, 0.9), u(0.08, 0.25), u(0.58, 0.75)
    wall = random_paint(v.rng, frequency=(4.0, 12.0))
    v.layer.rgb[:] = np.clip(wall.colour * light.colour * np.float32(0.8), 0, 1)
    floor = random_paint(v.rng)
    vx, vy = (x0 + x1) / 2, (y0 + y1) / 2
    depth = 0.25 / (np.maximum(v.y - vy, 0.02))
    tiles = floor.at((v.x - vx) * depth * np.float32(2.2), depth * np.float32(1.5) + 0 * v.x)
    v.cover(tiles * light.colour, np.broadcast_to(v.y > vy, tiles.shape[:2]))
    v.add(
        polygon((-0.01, -0.01), (x0, y0), (x1, y0), (1.01, -0.01)), plain(random_colour(v.rng, (0.6, 1.0))), bevel=0.1
    )
    v.add(polygon((-0.01, -0.01), (x0, y0), (x0, y1), (-0.01, 1.01 + u(0, 0.3))), wall.darker(0.7), bevel=0.1)
    v.add(polygon((1.01, -0.01), (x1, y0), (x1, y1), (1.01, 1.01 + u(0, 0.3))), wall.darker(0.85), bevel=0.1)
    v.add(box(x0, y0, x1, y1), wall, bevel=0.1)
    v.add(box(x0, y1 - 0.02, x1, y1), plain(random_colour(v.rng, (0.3, 1.0))))
    frame = plain(random_colour(v.rng, (0.3, 1.0)))
    w, h = u(0.1, 0.17), u(0.09, 0.15)
    cx, cy = u(x0 + w + 0.02, x1 - w - 0.02), u(y0 + h + 0.02, max(y0 + h + 0.03, y1 - h - 0.1))
    v.add(box(cx - w - 0.015, cy - h - 0.015, cx + w + 0.015, cy + h + 0.015), frame)
    bright = np.maximum(light.colour, 0.3)
    v.add(box(cx - w, cy - h, cx + w, cy), Paint(v.weather.zenith / bright, v.weather.horizon / bright), bevel=-0.4)
    v.add(box(cx - w, cy, cx + w, cy + h), Paint(v.weather.horizon / bright, v.weather.horizon / bright), bevel=-0.4)
    for outline in (rod(cx, cy - h, cx, cy + h, 0.012), rod(cx - w, cy, cx + w, cy, 0.012)):
        v.add(outline, frame)
    if v.rng.random() < 0.5:
        cloth = random_paint(v.rng, frequency=(8.0, 20.0))
        for side in (-1, 1):
            v.add(
                limb(
                    polygon((cx + side * (w + 0.02), cy - h - 0.04), (cx + side * (w + 0.03), cy + h + 0.08)),
                    (0.06, 0.09),
                ),
                cloth,
                "tube",
            )
    if v.rng.random() < 0.5:
        px, py, s = u(0.02, x0 * 0.6), u(0.3, 0.5), u(0.08, 0.14)
        flip = v.rng.random() < 0.5
        art = polygon((px, py), (px + x0 * 0.35, py + 0.03), (px + x0 * 0.35, py + s), (px, py + s + 0.05))
        v.add(art * (-1, 1) + (1, 0) if flip else art, random_paint(v.rng), bevel=1.0, seam=0.3)
    if v.rng.random() < 0.4:
        lx, drop = u(x0 + 0.1, x1 - 0.1), u(0.08, 0.2)
        v.add(rod(lx, 0.0, lx, drop, 0.008), plain(np.zeros(3, np.float32)))
        v.add(
            polygon((lx - 0.03, drop), (lx + 0.03, drop), (lx + 0.08, drop + 0.07), (lx - 0.08, drop + 0.07)),
            frame,
            "tube",
        )
    if v.rng.random() < 0.4:
        v.add(
            oval(u(0.3, 0.7), u(0.82, 0.92), u(0.2, 0.35), u(0.05, 0.1)),
            random_paint(v.rng, frequency=(6.0, 14.0)),
            bevel=0.2,
        )
    names = ["chair", "sofa", "diningtable", "lamp", "pottedplant", "tvmonitor", "chair"]
    feet = np.sort(v.rng.uniform(y1 + 0.03, 0.98, int(v.rng.integers(2, 5))))
    for ground, name in zip(feet, v.rng.permutation(names), strict=False):
        v.thing(
            str(name),
            u(0.12, 0.88),
            float(ground),
            (0.3 + 0.5 * (float(ground) - y1)) * (0.75 if name in ("tvmonitor", "sofa") else 1.0),
        )
