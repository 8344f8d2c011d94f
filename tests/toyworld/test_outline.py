"""Outlines: corners, areas and interpolation."""

from __future__ import annotations

import numpy as np
import pytest

from toyworld.outline import Points, box, join, oval, polygon, rod, spline


def area(outline: Points) -> float:
    """Return the area of a polygon by the shoelace formula."""
    x, y = outline.T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2


def test_box_area_excludes_rounded_corners() -> None:
    assert area(box(0, 0, 3, 2)) == 6
    # Each corner, a square of side 0.5, becomes a fan of 4 triangles with angle pi / 8 between sides of length 0.5.
    assert area(box(0, 0, 3, 2, 0.5)) == pytest.approx(6 - 4 * 0.25 + 4 * 4 * 0.5 * 0.25 * np.sin(np.pi / 8))


def test_oval_area_is_that_of_an_ellipse() -> None:
    for angle in (0.0, 0.7):
        assert area(oval(1, 2, 3, 0.5, angle)) == pytest.approx(np.pi * 1.5, rel=0.01)


def test_rod_area_is_length_times_width() -> None:
    assert area(rod(0, 0, 3, 4, 0.2)) == pytest.approx(5 * 0.2)
    assert area(rod(0, 0, 3, 4, 0.2, 0.0)) == pytest.approx(5 * 0.2 / 2)


@pytest.mark.parametrize("closed", [True, False])
def test_spline_passes_through_its_corners(closed: bool) -> None:
    corners = [(0.0, 0.0), (1.0, 0.5), (0.5, 2.0), (-1.0, 1.0)]
    curve = spline(*corners, closed=closed)
    assert np.abs(curve[::7] - corners).max() < 1e-12
    assert len(curve) == (28 if closed else 22)


def test_join_concatenates_outlines_and_points() -> None:
    assert join(polygon((0, 0), (1, 0)), [[1, 1]]).tolist() == [[0, 0], [1, 0], [1, 1]]
