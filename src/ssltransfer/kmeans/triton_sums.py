"""Sums of clusters on a GPU in one kernel that reads each point once, as it is stored.

torch needs a sorted copy, a float32 copy and two passes over the sums: seven times as many bytes.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

SLAB = 512  # dimensions per program
ROWS = 64  # added in float32; their sums are added in float64


@triton.jit
def _add_rows(x, order, starts, sums, dims, SLAB: tl.constexpr, ROWS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    cluster, slab = tl.program_id(0), tl.program_id(1)
    begin, end = tl.load(starts + cluster), tl.load(starts + cluster + 1)
    if begin < end:
        columns = slab * SLAB + tl.arange(0, SLAB)
        inside = columns < dims
        place = sums + cluster.to(tl.int64) * dims + columns
        total = tl.load(place, mask=inside, other=0.0)
        for first in range(begin, end, ROWS):
            part = tl.zeros((SLAB,), dtype=tl.float32)
            for i in range(first, min(first + ROWS, end)):
                row = tl.load(order + i).to(tl.int64)
                part += tl.load(x + row * dims + columns, mask=inside, other=0.0).to(tl.float32)
            total += part.to(tl.float64)
        tl.store(place, total, mask=inside)


def add_rows(x: Tensor, order: Tensor, starts: Tensor, sums: Tensor) -> None:
    """Add points to the sums of their clusters, in the order of `order`: the same bits in each run.

    Args:
        x: float16 or float32 (B, D), contiguous.
        order: int64 (B,), rows of x, cluster by cluster.
        starts: int64 (k + 1,), where each cluster begins in `order`.
        sums: float64 (k, D), contiguous; changed in place.
    """
    dims = x.shape[1]
    kernel: Any = _add_rows[len(sums), triton.cdiv(dims, SLAB)]
    kernel(x, order, starts, sums, dims, SLAB=SLAB, ROWS=ROWS)
