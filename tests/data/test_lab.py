import numpy as np
import pytest
import torch
from skimage import color

from ssltransfer.data.lab import lab_to_rgb, lightness_alone, rgb_to_lab

IMAGES = torch.randint(0, 256, (3, 3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_rgb_to_lab_matches_scikit_image():
    IMAGES[0, :, :4] = torch.arange(4, dtype=torch.uint8).view(1, 4, 1)  # the dark end, where the curves are straight
    expected = color.rgb2lab(IMAGES.permute(0, 2, 3, 1).numpy())
    found = rgb_to_lab(IMAGES).permute(0, 2, 3, 1).numpy()
    assert np.abs(found - expected).max() < 2e-3
    assert found[..., 0].max() > 90 and np.abs(found[..., 1:]).max() > 80


# Lindbloom's calculator and many tables: sRGB under D65.
@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((128, 128, 128), (53.59, 0, 0)),
    ],
)
def test_rgb_to_lab_of_known_colors(rgb: tuple[int, ...], lab: tuple[float, ...]):
    found = rgb_to_lab(torch.tensor(rgb, dtype=torch.uint8).view(1, 3, 1, 1)).flatten()
    assert found.tolist() == pytest.approx(lab, abs=0.02)


def test_lab_to_rgb_inverts_rgb_to_lab():
    assert (lab_to_rgb(rgb_to_lab(IMAGES)) - IMAGES.float()).abs().max() < 0.05


def test_lab_to_rgb_clips_as_scikit_image():
    lab = torch.tensor([[50.0, 0, -100], [60, -120, 20], [20, 90, 90]]).T.reshape(1, 3, 1, 3)
    expected = color.lab2rgb(lab.permute(0, 2, 3, 1).numpy()) * 255
    assert np.abs(lab_to_rgb(lab).permute(0, 2, 3, 1).numpy() - expected).max() < 0.05


def test_lightness_has_no_color():
    lab = rgb_to_lab(IMAGES)
    alone = lightness_alone(lab)
    assert alone.shape == lab.shape and alone.min() >= -1 and alone.max() <= 1 + 1e-6
    assert torch.equal(alone[:, 0], alone[:, 1]) and torch.equal(alone[:, 0], alone[:, 2])
    turned = lab.clone()
    turned[:, 1:] = -lab[:, [2, 1]]
    assert torch.equal(lightness_alone(turned), alone)
