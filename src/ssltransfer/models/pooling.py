"""Pooling of a layer before it is used as a feature."""

import math

import torch.nn.functional as F
from torch import Tensor

from ssltransfer.config.protocols import Pool


def pooled(x: Tensor, pool: Pool | None) -> Tensor:
    """Pool a map (B, C, H, W); `pool` must be None for a vector (B, C)."""
    if pool is None:
        return x
    if pool.max:
        return F.adaptive_max_pool2d(x, pool.max)
    if pool.avg:
        return F.adaptive_avg_pool2d(x, pool.avg)
    stride = _stride(tuple(x.shape[1:]), pool)
    # No partial windows, so that the number of dimensions stays below the limit.
    return F.max_pool2d(x, stride) if stride > 1 else x


def pooled_shape(shape: tuple[int, ...], pool: Pool | None) -> tuple[int, ...]:
    """Shape of a layer (C, H, W), or (C,), after pooling."""
    if pool is None or len(shape) != 3:
        return shape
    if pool.max_dim:
        stride = _stride(shape, pool)
        return (shape[0], max(1, shape[1] // stride), max(1, shape[2] // stride))
    side = pool.max or pool.avg or 1
    return (shape[0], side, side)


def _stride(shape: tuple[int, ...], pool: Pool) -> int:
    """ceil(sqrt(dims / limit)), at most the map's own side (Kolesnikov et al. 2019; protocols 4.5)."""
    assert pool.max_dim is not None
    return min(math.ceil(math.sqrt(math.prod(shape) / pool.max_dim)), *shape[1:])
