"""Natural scenes."""

from __future__ import annotations

import numpy as np

from toyworld.outline import Points, blob, join, oval, polygon, rod, spline, stroke
from toyworld.scenes.scene import Scene
from toyworld.texture import WHITE, Texture, hsv, noise, random_color, soft_step


def coast(scene: Scene) -> None:
    """Sea with waves, reflected light, islands and boats, and a curved beach with foam and rocks."""
    u, rng = scene.u, scene.rng
    scene.add_sky()
    for _ in range(int(rng.integers(0, 3))):
        x, w = u(0, 1), u(0.1, 0.35)
        island = blob(rng, x, scene.horizon, w, u(0.03, 0.12), 0.2)
        scene.add(np.minimum(island, [9, scene.horizon + 0.01]), scene.air.hazed(scene.land_texture(), u(0.5, 1)))
    water = hsv(u(0.45, 0.65), u(0.15, 0.75), u(0.35, 0.85)) if rng.random() < 0.7 else random_color(rng)
    deep = (water + 2 * scene.air.horizon) / 3
    scene.add_ground(water, deep, 0.15, 2.0)
    depth = 0.05 / (np.maximum(scene.y - scene.horizon, 0) + 0.01)
    swell = noise(scene.x * depth * 0.5, depth * 1.6 + 0 * scene.x, scene.noise_offset())
    crest = soft_step(swell - u(0.58, 0.68), 0.06) * scene.below_horizon * np.float32(u(0.3, 0.8))
    scene.blend(np.broadcast_to(scene.air.horizon, scene.layer.rgb.shape), crest)
    if rng.random() < 0.5:
        sx, spread = u(0.2, 0.8), u(0.03, 0.1)
        glare = np.exp(-(((scene.x - sx) / (spread * (1 + 3 * (scene.y - scene.horizon)))) ** 2)) * scene.below_horizon
        scene.blend(np.ones_like(scene.layer.rgb), glare * (swell > 0.5) * 0.8)
    for _ in range(int(rng.integers(0, 3))):
        d = u(0, 1)
        scene.add_object("boat", u(0.05, 0.95), scene.horizon + 0.02 + 0.12 * (1 - d), 0.06 + 0.16 * (1 - d), d * 0.5)
    side = rng.random() < 0.5
    a, b, c = u(0.7, 0.95), u(0.65, 1.0), u(scene.horizon + 0.12, 0.85)
    shore = [(-0.1, c), (0.3, c + (a - c) * 0.6), (0.65, b), (1.1, 1.05)]
    line = spline(*shore, closed=False, steps=12)
    if side:
        line = line * (-1, 1) + (1, 0)
    sand = scene.land_texture()
    beach = join(line, [[-0.1, 1.2], [1.1, 1.2]] if side else [[1.1, 1.2], [-0.1, 1.2]])
    for lower, texture, bevel in ((-0.02, WHITE, 0), (0.012, sand.scaled(0.7), 0), (0.045, sand, 0.2)):
        scene.add(beach + np.array([0, lower]), texture, bevel=bevel)
    for _ in range(int(rng.integers(0, 6))):
        y = u(0.8, 1.0)
        scene.add(blob(rng, u(0, 1), y, u(0.03, 0.12), u(0.02, 0.07)), scene.land_texture(), "ball", 1.0, 0.3)


def desert(scene: Scene) -> None:
    """Dunes, each with a lit and a shaded side along a sharp crest, with ripples, cacti and a mesa."""
    u, rng = scene.u, scene.rng
    scene.add_sky()
    texture, count = scene.land_texture(), int(rng.integers(3, 6))
    if rng.random() < 0.4:
        x = u(0.1, 0.8)
        mesa = polygon(
            (x - 0.2, scene.horizon + 0.1), (x - 0.12, scene.horizon - u(0.06, 0.15)),
            (x + 0.13, scene.horizon - 0.1), (x + 0.22, scene.horizon + 0.1),
        )  # fmt: skip
        scene.add(mesa, scene.air.hazed(scene.land_texture(), 0.7))
    lit_left = rng.random() < 0.5
    for i in range(count):
        near = (i + 1) / count
        base = scene.horizon + (1 - scene.horizon) * (i / count) ** 1.2 + 0.05
        top, px = base - u(0.06, 0.2) * (0.5 + near), u(0.1, 0.9)
        left = spline((-0.3, base + 0.08), (px - 0.35, base - 0.02), (px, top), closed=False)
        right = spline((px, top), (px + 0.3, base + 0.0), (1.3, base + 0.1), closed=False)
        seen = scene.air.hazed(texture, 1 - near)
        whole = join(left, right, [[1.3, 1.2], [-0.3, 1.2]])
        scene.add(whole, seen.scaled(1.1), bevel=0.1)
        tail = spline(
            (px, top), (px + u(-0.08, 0.08), (top + base) / 2 + 0.05), (px + u(-0.2, 0.2), 1.15), closed=False
        )
        if lit_left:
            shade = join(tail, [[1.3, 1.2]], right[::-1])
        else:
            shade = join(tail, [[-0.3, 1.2]], left)
        scene.add(shade, seen.scaled(u(0.55, 0.75)), bevel=0)
        if near > 0.5:
            for y in np.arange(base + 0.06, 1.0, 0.035 + 0.03 * near):
                x0 = u(-0.1, 0.6)
                curve = spline((x0, y), (x0 + 0.15, y - 0.012), (x0 + 0.35, y + 0.01), closed=False)
                scene.add(stroke(curve, (0.002, 0.008, 0.002)), seen.scaled(0.6), bevel=0)
    for _ in range(int(rng.integers(0, 4))):
        foot = u(scene.horizon + 0.2, 1.0)
        _add_cactus(scene, u(0.05, 0.95), foot, 0.08 + 0.35 * (foot - scene.horizon))


def _add_cactus(scene: Scene, x: float, foot: float, h: float) -> None:
    u, rng = scene.u, scene.rng
    texture, w = scene.land_texture().scaled(0.8), h * 0.2
    for side in (-1, 1):
        if rng.random() < 0.75:
            y = foot - h * u(0.3, 0.5)
            arm = spline((x, y), (x + side * h * 0.25, y), (x + side * h * 0.28, y - h * 0.3), closed=False)
            scene.add(stroke(arm, w * 0.8), texture, "tube", 1.0, 0.2)
    stem = join(oval(x, foot - h, w / 2, w / 2, arc=(0.5, 1.0)), polygon((x + w / 2, foot), (x - w / 2, foot)))
    scene.add(stem, texture, "tube", 1.0, 0.2)


def field(scene: Scene) -> None:
    """Rows of crop with a vanishing point, hedges, houses or trees, bales, a fence in the foreground."""
    u, rng = scene.u, scene.rng
    scene.add_sky()
    if rng.random() < 0.6:
        scene.add(scene.skyline(scene.horizon + 0.02, u(0.03, 0.1), 0.4), scene.air.hazed(scene.land_texture(), 0.8))
    texture = scene.land_texture()
    scene.add_ground(texture.color, scene.air.hazed(texture, 0.6).color, 0.3)
    below = np.maximum(scene.y - scene.horizon, 1e-3)
    vx, rows = u(-0.3, 1.3), u(6, 14)
    strip = (scene.x - vx) / (below + 0.02) * np.float32(rows / 8)
    furrow = np.abs(strip % 1 - 0.5) * 2
    fade = np.clip(below * rows * 0.9, 0, 1)
    crop = texture.other * np.float32(u(0.55, 0.9)) * scene.air.light.color
    lumps = noise(scene.x / (below + 0.1) * 0.25, 0.1 / (below + 0.02) + 0 * scene.x, scene.noise_offset())
    row = soft_step(furrow - u(0.35, 0.6) + 0.5 * (lumps - 0.5), 0.12) * fade * scene.below_horizon
    scene.blend(crop * (0.75 + 0.5 * lumps)[..., None], row * 0.9)
    hedge = scene.land_texture().scaled(0.7)
    x = u(-0.1, 0.4)
    while x < 1.1 and rng.random() < 0.95:
        w = u(0.03, 0.1)
        scene.add(blob(rng, x, scene.horizon, w, u(0.015, 0.04), 0.15), scene.air.hazed(hedge, 0.5), "ball", 0.6)
        x += w * u(1, 3)
    for name in rng.permutation(["house", "tree", "tree"])[: int(rng.integers(0, 4))]:
        scene.add_object(str(name), u(0.05, 0.95), scene.horizon + u(0.01, 0.05), u(0.1, 0.22), 0.45)
    straw = scene.land_texture()
    for _ in range(int(rng.integers(0, 5))):
        y = u(scene.horizon + 0.06, 0.9)
        r = 0.015 + 0.11 * (y - scene.horizon)
        cx = u(0, 1)
        scene.add(oval(cx, y, r * 1.4, r), straw.scaled(0.75), "bar", 1.0, 0.3)
        scene.add(oval(cx + r * 0.9, y, r * 0.6, r), straw, "flat", 1.0, 0.2)
    if rng.random() < 0.4:
        wood, y, slope = scene.land_texture().scaled(0.8), u(0.82, 0.95), u(-0.08, 0.08)
        for rail in (-0.05, -0.11):
            scene.add(rod(-0.1, y + rail, 1.1, y + rail + slope, 0.018), wood, "bar", 0.6)
        for x in np.arange(u(0, 0.15), 1.1, u(0.14, 0.22)):
            scene.add(rod(x, y + slope * x + 0.04, x, y + slope * x - 0.15, 0.03), wood, "tube", 0.6)


def forest(scene: Scene) -> None:
    """Trees at three depths, taller than the image, with foliage, undergrowth and beams of light."""
    u, rng = scene.u, scene.rng
    scene.horizon = u(0.55, 0.75)
    scene.add_sky()
    leaves, bark, soil = scene.land_texture(), scene.land_texture().scaled(0.7), scene.land_texture()
    far = scene.air.hazed(leaves, 0.85)
    t = noise(scene.x * 0.6, scene.y * 0.6, scene.noise_offset())
    cover = soft_step(t - u(0.3, 0.5) + 0.5 * (scene.y - 0.4), 0.12)
    scene.blend(far.at(scene.x, scene.y) * scene.air.light.color, np.clip(cover, 0, 1) * 0.95)
    scene.add_ground(soil.color, scene.air.hazed(soil, 0.5).color, 0.7)
    conifers = rng.random() < 0.4
    for depth in (0.8, 0.45, 0.0):
        count = int(rng.integers(3, 5) * (1 + depth))
        foot = scene.horizon + (1 - scene.horizon) * (1 - depth) ** 1.3 * 0.95
        seen, dark = scene.air.hazed(bark, depth), scene.air.hazed(leaves, depth)
        for x in (np.arange(count) + rng.uniform(-0.3, 0.3, count) + 0.5) / count:
            w, y = (0.02 + 0.07 * (1 - depth)) * u(0.6, 1.3), foot + u(-0.03, 0.03)
            bend = u(-0.04, 0.04)
            spine = spline((x, y), (x + bend, y * 0.5), (x + bend * 1.5, -0.1), closed=False)
            scene.add(stroke(spine, (w * 1.8, w, w * 0.9, w * 0.7)), seen, "tube", 0.5, 0.15)
            if conifers:
                for k in range(3):
                    top, half = y * 0.7 - 0.2 * k, w * u(2.2, 3.2) * (1.2 - 0.25 * k)
                    tier = polygon((x, top - 0.24), (x + half, top), (x, top - 0.03), (x - half, top))
                    scene.add(tier, dark, "tube", 0.8, 0.2)
            else:
                for _ in range(2):
                    y0, side = u(0.15, 0.45), float(rng.choice([-1.0, 1.0]))
                    branch = rod(x + bend, y0, x + bend + side * u(0.06, 0.16), y0 - u(0.08, 0.2), w * 0.45, w * 0.15)
                    scene.add(branch, seen, "tube")
        if not conifers:
            for _ in range(int(6 + 4 * depth)):
                r = u(0.06, 0.14) * (1.1 - 0.5 * depth)
                foliage = blob(rng, u(-0.05, 1.05), u(-0.05, 0.2 + 0.12 * depth), r * 1.3, r, 0.2)
                scene.add(foliage, dark.scaled(u(0.75, 1.15)), "ball", 1.0, 0.2)
    for _ in range(int(rng.integers(2, 7))):
        y = u(scene.horizon + 0.08, 1.0)
        s = 0.02 + 0.1 * (y - scene.horizon)
        scene.add(blob(rng, u(0, 1), y, s * 1.5, s, 0.25), leaves.scaled(u(0.6, 1.1)), "ball", 1.0, 0.3)
    if rng.random() < 0.35:
        for x in rng.uniform(-0.1, 0.9, 3):
            w = u(0.03, 0.08)
            beam = (scene.x - x - 0.4 * scene.y) / w
            scene.blend(np.ones_like(scene.layer.rgb), np.exp(-beam * beam) * 0.18 * (1 - scene.y))


def mountain(scene: Scene) -> None:
    """Ranges of peaks with a lit and a shaded face, perhaps with snow, with a lake or trees in front."""
    u, rng = scene.u, scene.rng
    scene.horizon = u(0.5, 0.75)
    scene.add_sky()
    rock, snowy, chains = scene.land_texture(), rng.random() < 0.6, int(rng.integers(2, 4))
    for chain in range(chains):
        near = (chain + 1) / chains
        seen = scene.air.hazed(rock, 1 - near * 0.9)
        base = scene.horizon + 0.12 * chain
        peaks = int(rng.integers(2, 5))
        for k in rng.permutation(peaks):
            x = (k + u(0.1, 0.9)) / peaks
            _add_peak(scene, x, base, u(0.25, 0.5) * (1.15 - 0.45 * near), u(0.22, 0.42), seen, snowy and near < 0.95)
    texture = scene.land_texture()
    scene.horizon = min(0.9, scene.horizon + 0.12 * (chains - 1) + u(0.02, 0.1))
    if rng.random() < 0.4:
        mirror = scene.layer.rgb[::-1][int((1 - scene.horizon) * scene.side) :]
        start = round(scene.horizon * scene.side)
        rows = min(scene.side - start, len(mirror))
        scene.layer.rgb[start : start + rows] = mirror[:rows] * np.float32(0.75) + scene.air.zenith * np.float32(0.15)
        ripple = noise(scene.x * 0.2, scene.y * 2.5, scene.noise_offset())
        scene.blend(scene.layer.rgb * 1.25, scene.below_horizon * soft_step(ripple - 0.55, 0.1) * 0.8)
    else:
        scene.add_ground(texture.color, scene.air.hazed(texture, 0.3).color, 0.6)
    wood = scene.land_texture().scaled(0.7)
    for x in rng.uniform(-0.05, 1.05, int(rng.integers(0, 14))):
        h, y = u(0.06, 0.14), scene.horizon + u(0.0, 0.06)
        scene.add(polygon((x, y - h), (x + h * 0.25, y), (x - h * 0.25, y)), wood, "tube", 0.8, 0.2)


def _add_peak(scene: Scene, x: float, base: float, height: float, half: float, texture: Texture, snowy: bool) -> None:
    u, rng = scene.u, scene.rng
    top = base - height
    left, right = _flank(rng, x, top, x - half, base + 0.1), _flank(rng, x, top, x + half, base + 0.1)
    ridge = _flank(rng, x, top, x + u(-0.3, 0.3) * half, base + 0.1)
    lit, shaded = (right, left) if scene.air.light.direction[0] > 0 else (left, right)
    for side, factor in ((lit, 1.1), (shaded, 0.6)):
        scene.add(join(ridge, side[::-1]), texture.scaled(factor), bevel=0.15)
        if snowy:
            n = int(rng.integers(3, 6))
            outer, inner = (ridge[n] + 2 * side[n]) / 3, (ridge[n] * 2 + side[n]) / 3
            edge = np.stack([inner, outer]) + np.array([[0, -0.05 * height], [0, 0.06 * height]])
            cap = join(ridge[: n + 1], edge, side[: n + 1][::-1])
            scene.add(cap, scene.air.hazed(WHITE, 0.3).scaled(0.5 + 0.5 * factor), bevel=0.1)


def _flank(rng: np.random.Generator, x0: float, y0: float, x1: float, y1: float) -> Points:
    t = np.linspace(0, 1, 10)
    bump = rng.normal(0, 0.035, 10) * np.sin(t * np.pi)
    return np.stack([x0 + (x1 - x0) * (t + bump), y0 + (y1 - y0) * t], 1)
