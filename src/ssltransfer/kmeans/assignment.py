"""Exact nearest centroids: near-ties are decided in float64, and ties go to the lowest cluster."""

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from ssltransfer.kmeans.points import BLOCK_FLOATS, PointLoader

# Error of |c|^2 - 2xc in float32, in units of |x|^2 + |c|^2: measured 4e-8 x log2(D) at most, up to D = 9600.
ROUNDING = 2.0**-18
PAIR_FLOATS = 1 << 20
FEW_THREADS = 4
# Up to this many dimensions one kernel for products and minima is faster than two, by the arithmetic of
# tools/gpu_arithmetic.py. It multiplies more slowly, but does not write the products.
FUSED_DIMS = 2048


@cache
def gpu_kernels() -> ModuleType | None:
    """`triton_kernels`, if there is a GPU and torch was installed with Triton."""
    if not torch.cuda.is_available():
        return None
    try:
        from ssltransfer.kmeans import triton_kernels
    except ImportError:
        return None
    return triton_kernels


class NearestCentroid:
    """Finds the nearest of k centroids for blocks of points.

    Args:
        centroids: float32 (k, D), centered: this makes rounding errors of the products smaller.
        rows: points in the largest block. The memory of its products is allocated once, which saves a quarter of the
            time. If they have more than `BLOCK_FLOATS` numbers, a block is computed in parts.
        dtype: of the points. Float16 is multiplied as such and accumulated in float32; near-ties are not decided.
    """

    def __init__(self, centroids: Tensor, rows: int, dtype: torch.dtype = torch.float32):
        self.centroids = centroids
        self._operand = centroids.to(dtype)
        self._squares = torch.linalg.vector_norm(self._operand, dim=1, dtype=torch.float32).square_()
        self._kernels = gpu_kernels() if dtype == torch.float16 and centroids.is_cuda else None
        self._fused = self._kernels is not None and centroids.shape[1] <= FUSED_DIMS
        self._rows = max(1, min(rows, BLOCK_FLOATS[centroids.device.type] // len(centroids)))
        self._scores = centroids.new_empty(0 if self._fused else self._rows, len(centroids))

    def __call__(self, x: Tensor, squares: Tensor, exact: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The nearest centroid of each point.

        Labels of float32 points do not depend on the summation order of the products, that is on threads or blocks.

        Args:
            x: (B, D).
            squares: float32 (B,), |x|^2.
            exact: points and centroids that decide near-ties, if x was computed from other values.

        Returns:
            Labels int64 (B,); squared distances float32 (B,) with an error of at most ROUNDING x (|x|^2 + |c|^2).
        """
        if self._kernels and self._fused:
            labels, least = self._kernels.nearest(x, self._operand, self._squares)
            return labels, least.add_(squares).clamp_(min=0)
        points, centroids = exact or (x, self.centroids)
        spans = [slice(first, first + self._rows) for first in range(0, max(1, len(x)), self._rows)]
        parts = [self._labeled(x[span], squares[span], points[span], centroids) for span in spans]
        if len(parts) == 1:
            return parts[0]
        labels, distances = (torch.cat(part) for part in zip(*parts, strict=True))
        return labels, distances

    def _labeled(self, x: Tensor, squares: Tensor, points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
        if self._kernels:
            labels, least = self._kernels.least(self._products(x), self._squares)
            return labels, least.add_(squares).clamp_(min=0)
        scores = self._scored(x)
        labels = _argmin(scores)
        best = scores.gather(1, labels[:, None])
        if x.dtype == torch.float32:
            margin = ROUNDING * (squares + self._squares.max())
            scores.scatter_(1, labels[:, None], torch.inf)
            unsure = (scores.amin(1) - best[:, 0] <= margin).nonzero()[:, 0]
            if len(unsure):
                candidates = scores[unsure] <= best[unsure] + margin[unsure, None]
                candidates.scatter_(1, labels[unsure, None], True)
                labels[unsure] = _decide(points[unsure], candidates, centroids)
        return labels, best[:, 0].add_(squares).clamp_(min=0)

    def _products(self, x: Tensor) -> Tensor:
        """The products xc of float16 points on a GPU, float32 (B, k)."""
        products = self._scores[: len(x)]
        # Without a bias: addmm of halves with a float32 bias is wrong in some versions of torch (issue 154086).
        torch.mm(x, self._operand.T, out_dtype=torch.float32, out=products)
        return products

    def _scored(self, x: Tensor) -> Tensor:
        """|c|^2 - 2xc, float32 (B, k)."""
        if x.dtype == torch.float16 and x.is_cuda:
            products = self._products(x)
            return torch.add(self._squares, products, alpha=-2, out=products)
        scores = self._scores[: len(x)]  # CPUs multiply in float32
        return torch.addmm(self._squares, x.float(), self._operand.float().T, alpha=-2, out=scores)


def _argmin(scores: Tensor) -> Tensor:
    """Index of the minimum of each row. With few threads numpy's argmin is six times as fast as torch's."""
    if scores.is_cuda or torch.get_num_threads() > FEW_THREADS:
        return scores.argmin(1)
    return torch.from_numpy(scores.numpy().argmin(1))


def _decide(x: Tensor, candidates: Tensor, centroids: Tensor) -> Tensor:
    """The nearest candidate of each point in float64, the lowest one for ties."""
    pairs = candidates.nonzero()
    step = max(1, PAIR_FLOATS // x.shape[1])
    distances = torch.cat(
        [(x[p[:, 0]].double() - centroids[p[:, 1]].double()).square_().sum(1) for p in pairs.split(step)]
    )
    rows = pairs[:, 0]
    least = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    least.scatter_reduce_(0, rows, distances, "amin")
    equal = distances <= least[rows] * (1 + 1e-12)  # the last bits of equal sums may differ
    lowest = torch.full((len(x),), len(centroids), device=x.device)
    return lowest.scatter_reduce_(0, rows[equal], pairs[equal, 1], "amin")


@torch.inference_mode()
def assign(points: PointLoader, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """One pass over all points, which are not centered, by all ranks together.

    Returns:
        Labels int32 (N,) and squared distances float32 (N,) from explicit differences, both on the CPU.
    """
    offset = centroids.mean(0, dtype=torch.float64).float()
    nearest = NearestCentroid(centroids - offset, points.step)
    buffer, near = (centroids.new_empty(points.step, centroids.shape[1]) for _ in range(2))
    labels = torch.zeros(points.shape[0], dtype=torch.int32)
    distances = torch.zeros(points.shape[0])
    for span, x in points:
        shifted = torch.sub(x, offset, out=buffer[: len(x)])
        squares = torch.linalg.vector_norm(shifted, dim=1).square_()
        clusters, _ = nearest(shifted, squares, (x, centroids))
        labels[span] = clusters.int().cpu()
        torch.sub(x, torch.index_select(centroids, 0, clusters, out=near[: len(x)]), out=shifted)
        distances[span] = shifted.square_().sum(1).cpu()
    return points.total(labels), points.total(distances)
