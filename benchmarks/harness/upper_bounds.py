"""Operations that no implementation can avoid, as contenders."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.harness.measure import Contender


def product(n: int, dims: int, k: int, device: str, block: int = 2048, dtype: torch.dtype = torch.float32) -> Contender:
    """The bare product (n, dims) x (dims, k), `block` rows at a time into the same memory."""
    x, y = (torch.rand(shape, device=device).to(dtype) for shape in ((min(n, block), dims), (dims, k)))
    out = torch.empty(len(x), k, device=device, dtype=dtype)

    def call() -> None:
        for start in range(0, n, block):
            rows = min(block, n - start)
            torch.mm(x[:rows], y, out=out[:rows])

    return call


def copy(values: np.ndarray) -> Contender:
    """A copy of an array in memory."""
    out = np.empty_like(values)
    return lambda: np.copyto(out, values)
