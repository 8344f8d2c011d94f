"""Layers: geometry, compositing and shading of parts."""

from __future__ import annotations

import numpy as np
import pytest

from toyworld.layer import OVERSAMPLE, Layer, Light, Part, Pose
from toyworld.outline import box, oval
from toyworld.texture import WHITE, plain

GRAY = np.full(3, 0.4, np.float32)
FRONT = Light((0.0, 0.0, 1.0), np.ones(3, np.float32), 0.5)


def square(side: int, part: Part, light: Light = FRONT, scale: float = 10.0) -> Layer:
    layer = Layer(side, side)
    layer.add(part, Pose.of(scale, (side / 2, side / 2)), light, seam=0.0)
    return layer


def test_pose_scales_mirrors_rotates_and_translates() -> None:
    pose = Pose.of(2.0, (10, 20), np.pi / 2, mirror=True)
    # (1, 0) is mirrored to (-1, 0), rotated clockwise (y down) to (0, -1), scaled and moved.
    np.testing.assert_allclose(pose(np.array([[1.0, 0.0]])), [[10, 18]], atol=1e-12)
    assert pose.scale == pytest.approx(2)


def test_layer_add_covers_exactly_the_outline() -> None:
    layer = square(40, Part(box(-1, -1, 1, 1), WHITE))
    # Pillow's polygons include their border: at most half a pixel of the oversampled mask.
    assert (layer.alpha[10:30, 10:30] == 1).all()
    assert layer.alpha.sum() == pytest.approx(20 * 20, rel=0.06)
    mask = layer.mask()
    assert mask.shape == (40 // OVERSAMPLE, 40 // OVERSAMPLE)
    assert mask[5:15, 5:15].all() and mask.sum() == 100


def test_layer_add_outside_the_layer_changes_nothing() -> None:
    layer = Layer(20, 20)
    layer.add(Part(box(-1, -1, 1, 1), WHITE), Pose.of(5, (100, 100)), FRONT)
    assert not layer.alpha.any() and not layer.rgb.any()


def test_layer_over_shows_the_background_where_it_is_transparent() -> None:
    layer = square(40, Part(box(-1, -1, 1, 1), WHITE, bevel=0, gloss=0))
    background = np.full((40, 40, 3), 0.25, np.float32)
    image = layer.over(background)
    assert (image[:8] == 0.25).all()
    np.testing.assert_allclose(image[12:28, 12:28], layer.rgb[12:28, 12:28])


@pytest.mark.parametrize(("relief", "axes"), [("flat", ()), ("tube", (1,)), ("bar", (0,)), ("ball", (0, 1))])
def test_relief_darkens_the_surface_towards_its_edges(relief: str, axes: tuple[int, ...]) -> None:
    rgb = square(80, Part(box(-1, -1, 1, 1), plain(GRAY), relief, gloss=0, bevel=0), scale=30).rgb[15:65, 15:65, 0]
    for axis in (0, 1):
        profile = rgb.mean(1 - axis)
        contrast = profile[20:30].mean() - (profile[0] + profile[-1]) / 2
        assert (contrast > 0.05) == (axis in axes)


def test_shadow_falls_away_from_the_light() -> None:
    light = Light((-0.6, -0.6, 0.5), np.ones(3, np.float32), 0.5)
    factor = square(80, Part(oval(0, 0, 1, 1), WHITE), light).shadow(light, 12, 0.5)[..., 0]
    assert 0.5 <= factor.min() < 0.6 and factor[:10].min() == 1
    rows, columns = np.nonzero(factor < 0.75)
    assert rows.mean() > 42 and columns.mean() > 42
