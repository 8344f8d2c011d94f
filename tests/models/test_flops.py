"""Costs of networks."""

import pytest

from ssltransfer.config.backbones import ResNet18
from ssltransfer.models.flops import flops


def test_flops_of_resnet18_are_the_published_ones() -> None:
    """A ResNet-18 has 1.814e9 with its classifier of 512 x 1000 (torchvision's documentation: 1.81)."""
    assert flops(ResNet18()) / 2 == pytest.approx(1_814_073_344 - 512_000, rel=1e-3)
