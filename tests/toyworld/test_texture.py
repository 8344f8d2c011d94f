"""Textures and colors."""

from __future__ import annotations

import numpy as np
import pytest

from toyworld.texture import PATTERNS, Texture, distinct_color, noise, plain, random_texture

BLACK, RED = np.zeros(3, np.float32), np.array([1, 0, 0], np.float32)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_texture_blends_its_two_colors(pattern: str) -> None:
    x, y = np.linspace(0, 2, 80, dtype=np.float32)[None, :], np.linspace(0, 2, 60, dtype=np.float32)[:, None]
    colors = Texture(BLACK, RED, pattern).at(x, y)
    assert colors.shape == (60, 80, 3)
    assert (colors[..., 1:] == 0).all()
    assert colors.min() >= 0 and colors.max() <= 1
    assert np.ptp(colors[..., 0]) > (0.1 if pattern == "plain" else 0.5)


def test_texture_refuses_an_unknown_pattern() -> None:
    with pytest.raises(ValueError, match="unknown pattern 'tartan'"):
        Texture(BLACK, RED, "tartan").at(np.zeros((1, 1)), np.zeros((1, 1)))


def test_texture_scaled_multiplies_both_colors_up_to_1() -> None:
    texture = plain(np.array([0.2, 0.4, 0.8], np.float32)).scaled(2)
    np.testing.assert_allclose(texture.color, [0.4, 0.8, 1.0])
    np.testing.assert_allclose(texture.other, [0.3, 0.6, 1.0])


def test_distinct_color_keeps_its_distance() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        color = random_texture(rng).color
        assert np.sqrt(np.mean((distinct_color(rng, color, 0.3) - color) ** 2)) >= 0.3


def test_noise_tiles_without_a_seam() -> None:
    x = np.linspace(0, 1, 512, endpoint=False)[None, :]
    field = noise(x, x.T)
    assert (noise(x + 1, x.T + 3) == field).all()
    assert np.abs(field[:, -1] - field[:, 0]).mean() < 2 * np.abs(np.diff(field, axis=1)).mean()
