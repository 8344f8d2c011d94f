"""Man-made scenes."""

from __future__ import annotations

import numpy as np

from toyworld.outline import Points, box, join, oval, polygon, rod
from toyworld.scenes.scene import Scene
from toyworld.texture import WHITE, Texture, plain, random_color, random_texture


def city(scene: Scene) -> None:
    """Rows of towers with roofs, antennas and grids of windows, behind a street with vehicles or trees."""
    u, rng = scene.u, scene.rng
    scene.horizon = u(0.7, 0.9)
    scene.add_sky()
    for depth in (0.9, 0.5, 0.0)[int(rng.random() < 0.3) :]:
        x = u(-0.1, 0.0)
        while x < 1.0:
            w = u(0.1, 0.24) * (1.25 - 0.6 * depth)
            top = scene.horizon - u(0.12, 0.6) * (0.75 + 0.35 * depth)
            _add_tower(scene, x, x + w, top, depth)
            x += w + max(0.0, u(-0.06, 0.08))
    near = plain(random_color(rng, (0.2, 0.6)))
    scene.add_ground(near.color, scene.air.hazed(near, 0.2).color, 0.3)
    if rng.random() < 0.6:
        for x in np.arange(u(0, 0.1), 1.0, u(0.13, 0.25)):
            dash = rod(x, (scene.horizon + 1) / 2, x + 0.06, (scene.horizon + 1) / 2, 0.012)
            scene.add(dash, WHITE, bevel=0)
    for _ in range(int(rng.integers(0, 4))):
        name = str(rng.choice(["car", "bus", "tree"]))
        x, foot = u(0.05, 0.95), u(scene.horizon + 0.04, 0.99)
        scene.add_object(name, x, foot, u(0.1, 0.17) * (1.6 if name == "tree" else 1.0))


def _add_tower(scene: Scene, x0: float, x1: float, top: float, depth: float) -> None:
    u, rng, w = scene.u, scene.rng, x1 - x0
    wall = scene.air.hazed(plain(random_color(rng, (0.25, 0.9))), depth)
    if rng.random() < 0.25:
        scene.add(rod((x0 + x1) / 2, top, (x0 + x1) / 2, top - u(0.05, 0.12), 0.012, 0.004), wall.scaled(0.6))
    style = int(rng.integers(4))
    if style == 0:
        scene.add(polygon((x0, top), ((x0 + x1) / 2, top - u(0.05, 0.15)), (x1, top)), wall.scaled(0.75))
    elif style == 1:
        scene.add(box(x0 + w * 0.2, top - u(0.03, 0.08), x1 - w * 0.2, top + 0.01), wall.scaled(0.85))
    scene.add(box(x0, top, x1, scene.horizon + 0.02), wall, "flat", 0.6, 0.2)
    side = x1 - w * u(0.0, 0.35)
    side_wall = polygon((side, top), (x1, top + 0.01), (x1, scene.horizon + 0.02), (side, scene.horizon + 0.02))
    scene.add(side_wall, wall.scaled(0.65), bevel=0)
    columns, rows = max(2, int(w * (20 + 10 * depth))), max(3, int((scene.horizon - top) * (16 + 10 * depth)))
    pane, floor = (side - x0) / columns, (scene.horizon - top) / rows
    if pane < 0.012:
        return
    bands = rng.random() < 0.25
    kinds = [scene.air.hazed(scene.air.window(rng), depth * 0.7) for _ in range(3)]
    for row in range(rows):
        y = top + (row + 0.3) * floor
        if bands:
            scene.add(box(x0 + 0.1 * pane, y, side - 0.1 * pane, y + floor * 0.5), kinds[row % 3], bevel=0)
            continue
        for kind in kinds:
            for c in np.flatnonzero(rng.random(columns) < 0.6):
                px = x0 + (c + 0.25) * pane
                _fill_rectangle(scene, px, y, px + pane * 0.55, y + floor * 0.55, kind)


def _fill_rectangle(scene: Scene, x0: float, y0: float, x1: float, y1: float, texture: Texture) -> None:
    """Fill a rectangle without shading, because a tower has many windows."""
    side = scene.side
    rows = slice(max(0, round(y0 * side)), max(0, round(y1 * side)))
    columns = slice(max(0, round(x0 * side)), max(0, round(x1 * side)))
    scene.layer.rgb[rows, columns] = np.clip(texture.color * scene.air.light.color, 0, 1)


def road(scene: Scene) -> None:
    """A straight or bent road to the horizon with lines, cars, and lamps, trees or posts along it."""
    u, rng = scene.u, scene.rng
    scene.add_sky()
    if rng.random() < 0.6:
        scene.add(scene.skyline(scene.horizon + 0.02, u(0.04, 0.18), 0.45), scene.air.hazed(scene.land_texture(), 0.75))
    land = scene.land_texture()
    scene.add_ground(land.color, scene.air.hazed(land, 0.6).color, 0.6)
    vx, foot, wide, bend = u(0.25, 0.75), u(0.25, 0.75), u(0.25, 0.45), u(-0.35, 0.35)
    asphalt = plain(random_color(rng, (0.25, 0.65)) * np.float32(0.5) + np.float32(u(0.05, 0.3)))
    line = plain(np.array([1.0, 1.0, u(0.4, 1.0)], np.float32))

    def at(t: float | np.ndarray, offset: float) -> Points:
        """Return the point of the road at t (0 horizon, 1 lower edge of the image), offset -1..1 across."""
        t = np.asarray(t, np.float64)
        middle = vx + (foot - vx) * t + bend * t * (1 - t)
        return np.stack([middle + offset * wide * t, scene.horizon + (1.02 - scene.horizon) * t], -1)

    t = np.concatenate([np.linspace(0.004, 0.2, 8), np.linspace(0.25, 1.0, 12)])
    shoulder = scene.land_texture()
    for width, texture in ((1.25, shoulder), (1.0, asphalt)):
        scene.add(join(at(t, -width), at(t, width)[::-1]), scene.air.hazed(texture, 0.15), bevel=0.1)
    if rng.random() < 0.8:
        for edge in (-0.9, 0.9):
            scene.add(join(at(t, edge - 0.03), at(t, edge + 0.03)[::-1]), line, bevel=0)
    lanes = (0.0,) if rng.random() < 0.7 else (-0.3, 0.3)
    z = u(1.0, 1.3)
    while z < 14:
        span = 1 / np.array([z, z + 0.12 * z**0.5 + 0.18])
        for lane in lanes:
            scene.add(join(at(span, lane - 0.035), at(span, lane + 0.035)[::-1]), line, bevel=0)
        z += 0.75
    sides = [s for s in (-1.0, 1.0) if rng.random() < 0.75]
    kind = int(rng.integers(3))
    for z in 1 / np.linspace(0.09, 0.95, 7):
        for s in sides:
            x, y = at(1 / z, s * 1.45)
            if kind == 0:
                h, w = 0.75 / z, 0.035 / z
                scene.add(rod(x, y, x, y - h, w), plain(random_color(rng, (0.2, 0.4))), "tube", 0.5)
                scene.add(rod(x, y - h, x - s * 0.3 / z, y - h * 1.03, w * 0.8), plain(np.full(3, 0.3, np.float32)))
            elif kind == 1:
                scene.add_object("tree", x, y, 0.6 / z, min(0.8, z / 10))
            else:
                scene.add(rod(x, y, x, y - 0.16 / z, 0.05 / z), line, "tube", 0.5)
    for _ in range(int(rng.integers(0, 3))):
        t0 = u(0.12, 0.6)
        x, y = at(t0, float(rng.choice([-0.5, 0.5])))
        scene.add_object("car", float(x), float(y) + 0.02 * t0, 0.4 * t0, 0.3 * (1 - t0))


def room(scene: Scene) -> None:
    """A room in perspective: walls, floor, ceiling, window, furniture, perhaps curtains, a painting, a lamp, a rug."""
    u, rng = scene.u, scene.rng
    light = scene.air.light
    x0, x1, y0, y1 = u(0.1, 0.28), u(0.72, 0.9), u(0.08, 0.25), u(0.58, 0.75)
    wall = random_texture(rng, frequency=(4.0, 12.0))
    scene.layer.rgb[:] = np.clip(wall.color * light.color * np.float32(0.8), 0, 1)
    floor = random_texture(rng)
    vx, vy = (x0 + x1) / 2, (y0 + y1) / 2
    depth = 0.25 / (np.maximum(scene.y - vy, 0.02))
    tiles = floor.at((scene.x - vx) * depth * np.float32(2.2), depth * np.float32(1.5) + 0 * scene.x)
    scene.blend(tiles * light.color, np.broadcast_to(scene.y > vy, tiles.shape[:2]))
    ceiling = polygon((-0.01, -0.01), (x0, y0), (x1, y0), (1.01, -0.01))
    scene.add(ceiling, plain(random_color(rng, (0.6, 1.0))), bevel=0.1)
    scene.add(polygon((-0.01, -0.01), (x0, y0), (x0, y1), (-0.01, 1.01 + u(0, 0.3))), wall.scaled(0.7), bevel=0.1)
    scene.add(polygon((1.01, -0.01), (x1, y0), (x1, y1), (1.01, 1.01 + u(0, 0.3))), wall.scaled(0.85), bevel=0.1)
    scene.add(box(x0, y0, x1, y1), wall, bevel=0.1)
    scene.add(box(x0, y1 - 0.02, x1, y1), plain(random_color(rng, (0.3, 1.0))))
    frame = plain(random_color(rng, (0.3, 1.0)))
    w, h = u(0.1, 0.17), u(0.09, 0.15)
    cx, cy = u(x0 + w + 0.02, x1 - w - 0.02), u(y0 + h + 0.02, max(y0 + h + 0.03, y1 - h - 0.1))
    scene.add(box(cx - w - 0.015, cy - h - 0.015, cx + w + 0.015, cy + h + 0.015), frame)
    bright = np.maximum(light.color, 0.3)
    upper_pane = box(cx - w, cy - h, cx + w, cy)
    scene.add(upper_pane, Texture(scene.air.zenith / bright, scene.air.horizon / bright), bevel=-0.4)
    lower_pane = box(cx - w, cy, cx + w, cy + h)
    scene.add(lower_pane, Texture(scene.air.horizon / bright, scene.air.horizon / bright), bevel=-0.4)
    for outline in (rod(cx, cy - h, cx, cy + h, 0.012), rod(cx - w, cy, cx + w, cy, 0.012)):
        scene.add(outline, frame)
    if rng.random() < 0.5:
        cloth = random_texture(rng, frequency=(8.0, 20.0))
        for side in (-1, 1):
            curtain = rod(cx + side * (w + 0.02), cy - h - 0.04, cx + side * (w + 0.03), cy + h + 0.08, 0.06, 0.09)
            scene.add(curtain, cloth, "tube")
    if rng.random() < 0.5:
        px, py, s = u(0.02, x0 * 0.6), u(0.3, 0.5), u(0.08, 0.14)
        flip = rng.random() < 0.5
        art = polygon((px, py), (px + x0 * 0.35, py + 0.03), (px + x0 * 0.35, py + s), (px, py + s + 0.05))
        scene.add(art * (-1, 1) + (1, 0) if flip else art, random_texture(rng), bevel=1.0, seam=0.3)
    if rng.random() < 0.4:
        lx, drop = u(x0 + 0.1, x1 - 0.1), u(0.08, 0.2)
        scene.add(rod(lx, 0.0, lx, drop, 0.008), plain(np.zeros(3, np.float32)))
        lampshade = polygon((lx - 0.03, drop), (lx + 0.03, drop), (lx + 0.08, drop + 0.07), (lx - 0.08, drop + 0.07))
        scene.add(lampshade, frame, "tube")
    if rng.random() < 0.4:
        rug = oval(u(0.3, 0.7), u(0.82, 0.92), u(0.2, 0.35), u(0.05, 0.1))
        scene.add(rug, random_texture(rng, frequency=(6.0, 14.0)), bevel=0.2)
    names = ["chair", "sofa", "diningtable", "lamp", "pottedplant", "tvmonitor", "chair"]
    feet = np.sort(rng.uniform(y1 + 0.03, 0.98, int(rng.integers(2, 5))))
    for foot, name in zip(feet.tolist(), rng.permutation(names).tolist(), strict=False):
        height = (0.3 + 0.5 * (foot - y1)) * (0.75 if name in ("tvmonitor", "sofa") else 1.0)
        scene.add_object(name, u(0.12, 0.88), foot, height)
