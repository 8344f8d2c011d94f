import itertools
from typing import Any

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from ssltransfer.data.colors import color_jitter
from ssltransfer.data.rng import SampleRNG

STILL: dict[str, Any] = {"contrast": (1, 1), "saturation": (1, 1), "hue": 0}
STEPS = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


def images(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 7, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def test_color_distortion_matches_torchvision():
    source = images(40)
    source[0] = 100  # gray: no hue
    source[1, 1:] = source[1, :1]
    rng = SampleRNG(3, 1, torch.arange(40))
    found = color_jitter(source, rng)
    factors = rng.uniform("colors/factors", 4, -1.0, 1.0) * torch.tensor([0.125, 0.5, 0.5, 0.2])
    factors += torch.tensor([1.0, 1.0, 1.0, 0.0])
    orders = rng.permutation("colors/order", 4)
    for image, one, factor, order in zip(source, found, factors, orders, strict=True):
        x = image.float() / 255
        for step in order.tolist():
            x = STEPS[step](x, float(factor[step]))
        assert torch.allclose(one / 255, x, atol=2e-5)
    assert found.dtype == torch.float32 and found.min() >= 0 and found.max() <= 255


def test_color_distortion_covers_orders_and_ranges():
    rng = SampleRNG(0, 0, torch.arange(2000))
    orders = {tuple(order) for order in rng.permutation("colors/order", 4).tolist()}
    assert orders == set(itertools.permutations(range(4)))


def test_color_distortion_zero_strength_is_identity():
    source = images(10)
    still = color_jitter(source, SampleRNG(0, 0, torch.arange(10)), brightness=(1, 1), **STILL)
    assert torch.allclose(still, source.float(), atol=1e-3)


def test_color_distortion_covers_given_range():
    """Brightness alone, of images so dark that nothing is clipped."""
    source = torch.full((2000, 3, 1, 1), 100, dtype=torch.uint8)
    rng = SampleRNG(0, 0, torch.arange(2000))
    factor = color_jitter(source, rng, brightness=(0.7, 1.4), **STILL)[:, 0, 0, 0] / 100
    assert 0.7 <= factor.min() < 0.71 and 1.39 < factor.max() <= 1.4 + 1e-6
    assert float(factor.mean()) == pytest.approx(1.05, abs=0.01)


@pytest.mark.parametrize("row", [0, 4])
def test_color_distortion_is_independent_of_batch(row: int):
    source = images(6)
    together = color_jitter(source, SampleRNG(0, 2, torch.arange(6)))
    alone = color_jitter(source[row : row + 1], SampleRNG(0, 2, torch.tensor([row])))
    assert torch.equal(together[row : row + 1], alone)
