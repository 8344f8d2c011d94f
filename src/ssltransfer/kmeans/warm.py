"""A start that has been through most of the way already: k-means in the space of the leading principal components."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.kmeans.lloyd import Sums
from ssltransfer.kmeans.points import Points

COMPONENTS = 64
SAMPLE = 4096  # points that the components are found from
OVERSAMPLING, POWERS = 8, 2  # of the randomized decomposition (Halko, Martinsson, Tropp 2011, algorithm 4.4)


def warm_bytes(n: int, dims: int) -> int:
    """Memory that a warm start takes besides the points."""
    few = components(dims)
    return 4 * (3 * min(n, SAMPLE) * dims + (few + OVERSAMPLING) * dims * 2 + 3 * n * few)


def components(dims: int) -> int:
    """How many components are kept."""
    return min(COMPONENTS, dims)


@torch.inference_mode()
def project(points: Points, seed: int) -> np.ndarray:
    """Coordinates of all points along the leading principal components of a sample.

    Returns:
        float32 (N, components).
    """
    n, dims = points.shape
    rng = SampleRNG(seed_of(seed, "principal components"), 0, torch.zeros(1, dtype=torch.int64))
    sample = points.take(np.sort(rng.permutation("sample", n)[0].numpy()[:SAMPLE]))
    mean = sample.mean(0)
    sample -= mean
    wide = min(components(dims) + OVERSAMPLING, dims, len(sample))
    uniform = rng.bits("range", dims * wide)[0].double() * 2.0**-53 - 0.5
    basis = uniform.float().view(dims, wide).to(points.device)
    for _ in range(1 + POWERS):
        basis = torch.linalg.qr(sample.T @ (sample @ basis))[0]
    turn = torch.linalg.eigh((sample @ basis).T @ (sample @ basis))[1].flip(1)
    basis = (basis @ turn)[:, : components(dims)].contiguous()
    if points.rank:
        basis.zero_()  # all ranks use the first one's: they may be unlike machines
    basis = points.total(basis)
    found = torch.zeros(n, basis.shape[1], device=points.device)
    for span, x in points:
        found[span] = (x - mean) @ basis
    projected: np.ndarray = points.total(found).cpu().numpy()
    return projected


@torch.inference_mode()
def lift(points: Points, labels: np.ndarray, k: int) -> Tensor:
    """Means of the points of each cluster in all dimensions; the mean of all for a cluster without a point.

    Args:
        points: N points.
        labels: int32 (N,).
        k: clusters.

    Returns:
        float32 (k, D).
    """
    sums = Sums(k, points.shape[1], points.device)
    given = torch.from_numpy(labels).long().to(points.device)
    for span, x in points:
        sums.add(given[span], x)
    points.total(sums.whole())
    mean = sums.rows.sum(0) / points.shape[0]
    full = sums.counts > 0
    return torch.where(full[:, None], sums.rows / sums.counts.clamp(min=1)[:, None], mean).float()
