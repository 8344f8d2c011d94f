"""Networks whose every value matters, and what they are shown."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone

M = TypeVar("M", bound=nn.Module)


def shaken(network: M) -> M:
    """Statistics, scales and shifts unlike those of a fresh network, so that a tensor in a wrong place shows."""
    generator = torch.Generator().manual_seed(5)
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.uniform_(-0.3, 0.3, generator=generator)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point() and value.ndim == 1:
            value.add_(0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return network


def shaken_backbone(options: BackboneOptions) -> Backbone:
    """That backbone with its top, in float64, for evaluation."""
    return shaken(build_backbone(options, include_top=True).double().eval())


def noise(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normally distributed values of this shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def conv_net(width: int = 8) -> nn.Module:
    """A network that a user might write, for `backbone: custom`."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
