"""RGB-D images: files, and depth against the geometry of the room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toyworld import generate
from toyworld.solids import Ball, Box
from toyworld.split_writer import make_rng
from toyworld.subsets import rgbd


def random_room(number: int) -> rgbd.Room:
    return rgbd.random_room(make_rng(0, "rgbd", "train", number))


def test_rgbd_files_hold_the_depth_of_the_room(tmp_path: Path) -> None:
    generate("rgbd", tmp_path, split="train", num_images=3, size=48)
    lines = (tmp_path / "train.txt").read_text().splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines):
        image, depth = (Image.open(tmp_path / name) for name in line.split())
        assert image.size == depth.size == (64, 48)
        assert depth.mode == "I;16"
        stored, true = np.asarray(depth), random_room(number).cast(48, 64)[0] * 1000
        valid = stored > 0
        assert 0.85 < valid.mean() < 1
        np.testing.assert_allclose(stored[valid], true[valid], atol=0.51)


@pytest.mark.parametrize("number", range(6))
def test_cast_depth_of_a_wall_is_planar(number: int) -> None:
    room = random_room(number)
    height, width = 60, 80
    depth, owner = room.cast(height, width)
    inside = owner == 0
    v, u = np.mgrid[:height, :width] + 0.5
    f = rgbd.FOCAL_LENGTH * width
    # The inverse depth of a plane n.p = d seen by a pinhole camera is linear in the pixel: n.(u', v', 1) / d.
    inverse = 1 / depth.astype(np.float64)
    points_of_camera = np.stack([(u - width / 2) / f * depth, (v - height / 2) / f * depth, depth], -1)
    points_in_room = points_of_camera @ room.axes + room.eye
    walls = room.solids[0]
    assert isinstance(walls, Box)
    distance = np.abs(np.abs(points_in_room - walls.center) - walls.half)
    assert distance.min(-1)[inside].max() < 1e-3
    for axis in range(3):
        for side in (-1, 1):
            face = inside & (np.abs(points_in_room[..., axis] - walls.center[axis] - side * walls.half[axis]) < 1e-4)
            if face.sum() < 50:
                continue
            design = np.stack([u[face], v[face], np.ones(face.sum())], 1)
            fit = design @ np.linalg.lstsq(design, inverse[face], rcond=None)[0]
            np.testing.assert_allclose(fit, inverse[face], atol=2e-5)


def test_cast_returns_the_nearest_solid_and_round_balls() -> None:
    seen = 0
    for number in range(8):
        room = random_room(number)
        depth, owner = room.cast(60, 80)
        rays = room.rays(60, 80)
        every = np.stack([solid.intersect(room.eye, rays) for solid in room.solids[1:]] or [np.full((60, 80), np.inf)])
        assert (depth <= every.min(0) * (1 + 1e-5)).all()
        wall = room.solids[0].intersect(room.eye, rays)
        np.testing.assert_allclose(depth, np.minimum(wall, every.min(0)), rtol=1e-5)
        for k, solid in enumerate(room.solids):
            if isinstance(solid, Ball) and (owner == k).any():
                points = room.eye[:, None] + rays[:, owner == k] * depth[owner == k]
                radius = np.linalg.norm(points - solid.center[:, None], axis=0)
                np.testing.assert_allclose(radius, solid.radius, atol=2e-3)
                seen += 1
    assert seen > 0


def test_rgbd_image_and_depth_show_same_room() -> None:
    """Where the nearest solid changes, the image changes more than elsewhere."""
    ratios = []
    for number in range(4):
        room = random_room(number)
        image = room.render(60, 80).mean(-1)
        owner = room.cast(60, 80)[1]
        step = np.abs(np.diff(image, axis=1))
        edge = np.diff(owner, axis=1) != 0
        ratios.append(step[edge].mean() / step[~edge].mean())
    assert min(ratios) > 1.3
