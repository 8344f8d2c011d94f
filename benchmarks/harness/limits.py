"""What no implementation can avoid, as contenders."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.harness.measure import Contender


def product(n: int, dims: int, k: int, device: str, block: int = 8192) -> Contender:
    """The bare product (n, dims) x (dims, k) in float32, `block` rows at a time into the same memory."""
    x, y = (torch.rand(shape, device=device) for shape in ((min(n, block), dims), (dims, k)))
    room = torch.empty(len(x), k, device=device)

    def call() -> None:
        for start in range(0, n, block):
            rows = min(block, n - start)
            torch.mm(x[:rows], y, out=room[:rows])

    return call


def copy(values: np.ndarray) -> Contender:
    """A copy of an array from memory to memory."""
    room = np.empty_like(values)
    return lambda: np.copyto(room, values)
