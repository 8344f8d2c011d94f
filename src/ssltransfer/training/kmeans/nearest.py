"""The nearest centroid of each point, exactly: near-ties are decided in float64, ties go to the lowest cluster."""

from __future__ import annotations

import torch
from torch import Tensor

from ssltransfer.training.kmeans.points import Points

# Error of |c|^2 - 2xc in float32, in units of |x|^2 + |c|^2: measured 4e-8 x log2(D) at most, up to D = 9600.
ROUNDING = 2.0**-18
PAIR_FLOATS = 1 << 20


class Nearest:
    """Finds the nearest of k centroids for one block of points after the other.

    Args:
        centroids: float32 (k, D).
        rows: points in the largest block. Memory for so many is taken once: fresh pages for each block would cost a
            quarter of the time.

    Attributes:
        offset: float32 (D,), mean of the centroids: products of centred values lose fewer digits.
    """

    def __init__(self, centroids: Tensor, rows: int):
        self.centroids = centroids
        self.offset = centroids.mean(0, dtype=torch.float64).float()
        self._centred = centroids - self.offset
        self._squares = torch.linalg.vector_norm(self._centred, dim=1).square_()
        self._shifted = centroids.new_empty(rows, centroids.shape[1])
        self._scores = centroids.new_empty(rows, len(centroids))

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest centroid of each point.

        Labels do not depend on the order in which a matrix product is summed, and so not on threads or blocks.

        Args:
            x: float32 (B, D).

        Returns:
            Labels int64 (B,); squared distances float32 (B,), good to ROUNDING x (|x|^2 + |c|^2); and the points
            without the offset, (B, D), which the next call overwrites.
        """
        shifted, scores = self._shifted[: len(x)], self._scores[: len(x)]
        torch.sub(x, self.offset, out=shifted)
        own = torch.linalg.vector_norm(shifted, dim=1).square_()
        torch.addmm(self._squares, shifted, self._centred.T, alpha=-2, out=scores)
        best, labels = scores.min(1)
        scores.scatter_(1, labels[:, None], torch.inf)
        margin = ROUNDING * (own + self._squares.max())
        unsure = (scores.amin(1) - best <= margin).nonzero()[:, 0]
        if len(unsure):
            candidates = scores[unsure] <= (best + margin)[unsure, None]
            candidates.scatter_(1, labels[unsure, None], True)
            labels[unsure] = _decided(x[unsure], candidates, self.centroids)
        return labels, (best + own).clamp_(min=0), shifted


def _decided(x: Tensor, candidates: Tensor, centroids: Tensor) -> Tensor:
    """The lowest of the nearest candidates, in float64."""
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
def assign(points: Points, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """One pass over all points.

    Args:
        points: N points.
        centroids: float32 (k, D).

    Returns:
        Labels int32 (N,) and squared distances float32 (N,), summed over the differences themselves; on the CPU.
    """
    nearest = Nearest(centroids, points.step)
    labels = torch.empty(points.shape[0], dtype=torch.int32)
    distances = torch.empty(points.shape[0])
    for span, x in points:
        found, _, room = nearest(x)
        labels[span] = found.int().cpu()
        torch.sub(x, centroids[found], out=room)
        distances[span] = room.square_().sum(1).cpu()
    return labels, distances
