"""Kernels of an iteration of Lloyd's algorithm on a GPU. None uses atomics: equal points give equal bits."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

SLAB = 512  # dimensions per program
ROWS = 64  # added in float32; their sums are added in float64
GROUP = 8  # tiles of points that share a tile of centroids in the cache
SCORES = 1024  # scores of a point that a program holds at once


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
    """Add points to the sums of their clusters, in the order of `order`, and read each point once, as it is stored.

    torch needs a sorted copy, a float32 copy and two passes over the sums: seven times as many bytes.

    Args:
        x: float16 or float32 (B, D), contiguous.
        order: int64 (B,), rows of x, cluster by cluster.
        starts: int64 (k + 1,), where each cluster begins in `order`.
        sums: float64 (k, D), contiguous; changed in place.
    """
    dims = x.shape[1]
    kernel: Any = _add_rows[len(sums), triton.cdiv(dims, SLAB)]
    kernel(x, order, starts, sums, dims, SLAB=SLAB, ROWS=ROWS)


@triton.jit
def _nearest(  # type: ignore[no-untyped-def]
    x,
    centroids,
    squares,
    best,
    which,
    n,
    k,
    dims,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    tile_dims: tl.constexpr,
    group: tl.constexpr,
):
    # Programs that run at the same time share `group` tiles of points and few tiles of centroids.
    program = tl.program_id(0)
    tiles = tl.cdiv(k, tile_k)
    first = program // (group * tiles) * group
    high = min(tl.cdiv(n, tile_n) - first, group)
    tile = program % (group * tiles) // high
    rows = (first + program % (group * tiles) % high) * tile_n + tl.arange(0, tile_n)
    columns = tile * tile_k + tl.arange(0, tile_k)
    own = x + rows[:, None].to(tl.int64) * dims
    other = centroids + columns[None, :].to(tl.int64) * dims
    products = tl.zeros((tile_n, tile_k), dtype=tl.float32)
    for start in range(0, dims, tile_dims):
        dim = start + tl.arange(0, tile_dims)
        a = tl.load(own + dim[None, :], mask=(rows < n)[:, None] & (dim < dims)[None, :], other=0.0)
        b = tl.load(other + dim[:, None], mask=(columns < k)[None, :] & (dim < dims)[:, None], other=0.0)
        products = tl.dot(a, b, products, input_precision="ieee")
    scores = tl.load(squares + columns, mask=columns < k, other=float("inf"))[None, :] - 2.0 * products
    least, place = tl.min(scores, axis=1, return_indices=True, return_indices_tie_break_left=True)
    out = tile.to(tl.int64) * n + rows
    tl.store(best + out, least, mask=rows < n)
    tl.store(which + out, tile * tile_k + place, mask=rows < n)


def nearest(x: Tensor, centroids: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centroid of each point. The (B, k) products are never written.

    Each tile of centroids leaves one candidate per point, and torch takes the first of the least ones.

    Args:
        x: float16 (B, D), contiguous.
        centroids: float16 (k, D), contiguous.
        squares: float32 (k,), |c|^2.

    Returns:
        Labels int64 (B,), the lowest one for ties; |c|^2 - 2xc float32 (B,).
    """
    (n, dims), k = x.shape, len(centroids)
    sides = (128, 256, 64) if x.is_cuda else (16, 16, 16)  # small ones for the interpreter
    tiles = triton.cdiv(k, sides[1])
    best = torch.empty(tiles, n, device=x.device)
    which = torch.empty(tiles, n, dtype=torch.int64, device=x.device)
    kernel: Any = _nearest[(triton.cdiv(n, sides[0]) * tiles,)]
    pipeline = {"num_warps": 8, "num_stages": 3} if x.is_cuda else {}
    kernel(x, centroids, squares, best, which, n, k, dims, *sides, group=GROUP, **pipeline)
    tile = best.argmin(0)[None]
    return which.gather(0, tile)[0], best.gather(0, tile)[0]


@triton.jit
def _least(products, squares, best, which, k, TILE: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    row = tl.program_id(0).to(tl.int64)
    least, place = float("inf"), tl.zeros((), dtype=tl.int32)
    for start in range(0, k, TILE):
        columns = start + tl.arange(0, TILE)
        inside = columns < k
        product = tl.load(products + row * k + columns, mask=inside, other=0.0)
        scores = tl.load(squares + columns, mask=inside, other=float("inf")) - 2.0 * product
        value, column = tl.min(scores, axis=0, return_indices=True, return_indices_tie_break_left=True)
        place = tl.where(value < least, start + column, place)
        least = tl.minimum(least, value)
    tl.store(best + row, least)
    tl.store(which + row, place.to(tl.int64))


def least(products: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """The least |c|^2 - 2xc of each point, from products that are read once. torch reads them three times.

    Args:
        products: float32 (B, k), contiguous, xc.
        squares: float32 (k,), |c|^2.

    Returns:
        Labels int64 (B,), the lowest one for ties; |c|^2 - 2xc float32 (B,).
    """
    n, k = products.shape
    best = torch.empty(n, device=products.device)
    which = torch.empty(n, dtype=torch.int64, device=products.device)
    kernel: Any = _least[(n,)]
    kernel(products, squares, best, which, k, TILE=SCORES)
    return which, best
