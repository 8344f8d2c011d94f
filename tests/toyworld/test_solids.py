"""Intersections of rays with solids, against geometry worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from toyworld.solids import Ball, Box
from toyworld.texture import WHITE

ORIGIN = np.zeros(3, np.float32)


def vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_box_intersect_returns_nearest_distance() -> None:
    box = Box(vector(0, 0, 5), vector(1, 1, 1), 0.0, (WHITE,))
    rays = np.stack([vector(0, 0, 1), vector(0, 0, 2), vector(0.2, 0.2, 1), vector(1, 0, 1)], 1)
    assert box.intersect(ORIGIN, rays).tolist() == [4, 2, 4, np.inf]


def test_box_intersect_honors_yaw() -> None:
    """A cube rotated by 45 degrees shows an edge, sqrt(2) in front of its center."""
    box = Box(vector(0, 0, 5), vector(1, 1, 1), np.pi / 4, (WHITE,))
    assert box.intersect(ORIGIN, vector(0, 0, 1)[:, None])[0] == pytest.approx(5 - np.sqrt(2), rel=1e-5)


def test_room_intersect_returns_the_far_wall() -> None:
    room = Box(vector(0, 0, 2), vector(3, 1, 2), 0.0, (WHITE,), inside=True)
    assert room.intersect(vector(0, 0, 1), vector(0, 0, 1)[:, None]).tolist() == [3]
    normal, _ = room.surface(np.array([[0, 0, 4]], np.float32))
    assert normal.tolist() == [[0, 0, -1]]


def test_ball_intersect_and_surface_agree_with_a_sphere() -> None:
    ball = Ball(vector(0, 0, 5), 1.0, WHITE)
    rays = np.stack([vector(0, 0, 1), vector(1, 0, 1)], 1)
    assert ball.intersect(ORIGIN, rays).tolist() == [4, np.inf]
    assert ball.surface(np.array([[0, 0, 4]], np.float32))[0].tolist() == [[0, 0, -1]]


def test_box_has_one_texture_per_face() -> None:
    textures = tuple(WHITE.scaled(k / 10) for k in range(1, 7))
    box = Box(vector(0, 0, 0), vector(1, 1, 1), 0.0, textures)
    centers = np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]], np.float32)
    normals, colors = box.surface(centers)
    assert (normals == centers).all()
    assert np.argsort(colors[:, 0]).tolist() == [0, 1, 2, 3, 4, 5]
