"""Networks whose every value matters, and what they are shown."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.models.build import build_trunk
from ssltransfer.models.trunk import BATCH_NORMS, Trunk

M = TypeVar("M", bound=nn.Module)


def shaken(network: M) -> M:
    """Batch norms with statistics, scales and shifts unlike those of a fresh network."""
    generator = torch.Generator().manual_seed(5)
    for part in network.modules():
        if isinstance(part, BATCH_NORMS):
            ranges = {"running_mean": (-0.3, 0.3), "running_var": (0.5, 1.5), "weight": (0.7, 1.3), "bias": (-0.2, 0.2)}
            for name, (low, high) in ranges.items():
                getattr(part, name).data.uniform_(low, high, generator=generator)
    return network


def shaken_trunk(options: TrunkOptions) -> Trunk:
    """That trunk with its top, in float64, for evaluation."""
    return shaken(build_trunk(options, top=True).double().eval())


def noise(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normally distributed values of this shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
