"""Initial centroids: random points, k-means++, or k-means among the leading principal components."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.kmeans.assignment import ROUNDING
from ssltransfer.kmeans.points import PointLoader
from ssltransfer.kmeans.update import ClusterSums

SAMPLE_BYTES = 512 << 20
COMPONENTS = 64
PCA_SAMPLE = 4096  # points from which the components are computed
OVERSAMPLING, POWERS = 8, 2  # of the randomized decomposition (Halko, Martinsson, Tropp 2011, algorithm 4.4)


def sample_size(n: int, dims: int, k: int) -> int:
    """Number of points that k-means++ draws from: 512 MB of float32, but at least 2k and at most all n."""
    return min(n, max(2 * k, SAMPLE_BYTES // (4 * dims)))


@torch.inference_mode()
def first_centroids(points: PointLoader, k: int, how: Literal["random", "k-means++"], seed: int) -> Tensor:
    """k distinct points, a function of the seed.

    random: uniformly. k-means++: with probability proportional to the squared distance from the nearest chosen point
    (Arthur & Vassilvitskii, SODA 2007), among a uniform sample of `sample_size` points.

    Returns:
        float32 (k, D).

    Raises:
        ArtifactError: there are fewer than k distinct points.
    """
    n, dims = points.shape
    rng = SampleRNG(seed_of(seed, "k-means"), 0, torch.zeros(1, dtype=torch.int64))
    order = rng.permutation("order", n)[0].numpy()
    chosen: dict[bytes, int] = {}
    if how == "k-means++":
        sample = np.sort(order[: sample_size(n, dims, k)])
        uniform = rng.bits("plus plus", k)[0].double() * 2.0**-53
        picked = sample[_plus_plus(points.take(sample), k, uniform)]
        chosen = dict(zip(points.digests(picked), picked.tolist(), strict=True))
    start, more = 0, k
    while len(chosen) < k and start < n:
        batch = order[start : start + more]
        for digest, point in zip(points.digests(batch), batch.tolist(), strict=True):
            if len(chosen) < k:
                chosen.setdefault(digest, point)
        start, more = start + more, 2 * more
    if len(chosen) < k:
        amount = "all are equal" if len(chosen) == 1 else f"only {len(chosen)} differ"
        raise ArtifactError(
            f"{points.where}: of {n} points {amount}: too few for {k} clusters; use a smaller k or another model."
        )
    return points.take(np.array(list(chosen.values())))


def _plus_plus(x: Tensor, k: int, uniform: Tensor) -> list[int]:
    """Indices of k rows of x by D^2 sampling, or of fewer if all others equal a chosen one. Overwrites x."""
    x -= x.mean(0)
    squares = torch.linalg.vector_norm(x, dim=1).square_()
    chosen = [int(uniform[0] * len(x))]
    least = torch.full_like(squares, torch.inf)
    for draw in uniform[1:].tolist():
        last = chosen[-1]
        distance = squares - 2 * (x @ x[last]) + squares[last]
        # A smaller distance may be a rounding error: a copy of a chosen point must not be drawn.
        distance = distance.where(distance > ROUNDING * (squares + squares[last]), 0.0)
        least = torch.minimum(least, distance)
        mass = least.double().cumsum(0)
        if mass[-1] == 0:
            break
        chosen.append(int(torch.searchsorted(mass, (draw * mass[-1])[None], right=True)))
    return chosen


def pca_init_bytes(n: int, dims: int) -> int:
    """Bytes of memory that `pca_project` and `expand_centroids` need in addition to the points."""
    kept = min(COMPONENTS, dims)
    return 4 * (3 * min(n, PCA_SAMPLE) * dims + (kept + OVERSAMPLING) * dims * 2 + 3 * n * kept)


@torch.inference_mode()
def pca_project(points: PointLoader, seed: int) -> np.ndarray:
    """Coordinates of all points along the leading principal components of a sample, float32 (N, min(64, D))."""
    n, dims = points.shape
    rng = SampleRNG(seed_of(seed, "principal components"), 0, torch.zeros(1, dtype=torch.int64))
    sample = points.take(np.sort(rng.permutation("sample", n)[0].numpy()[:PCA_SAMPLE]))
    mean = sample.mean(0)
    sample -= mean
    wide = min(min(COMPONENTS, dims) + OVERSAMPLING, dims, len(sample))
    uniform = rng.bits("range", dims * wide)[0].double() * 2.0**-53 - 0.5
    basis = uniform.float().view(dims, wide).to(points.device)
    for _ in range(1 + POWERS):
        basis = torch.linalg.qr(sample.T @ (sample @ basis))[0]
    turn = torch.linalg.eigh((sample @ basis).T @ (sample @ basis))[1].flip(1)
    basis = (basis @ turn)[:, : min(COMPONENTS, dims)].contiguous()
    if points.rank:
        basis.zero_()  # all ranks use that of the first, because their hardware may differ
    basis = points.total(basis)
    projected = torch.zeros(n, basis.shape[1], device=points.device)
    for span, x in points:
        projected[span] = (x - mean) @ basis
    return np.asarray(points.total(projected).cpu())


@torch.inference_mode()
def expand_centroids(points: PointLoader, labels: np.ndarray, k: int) -> Tensor:
    """Mean of the points of each cluster (of all points for an empty cluster), float32 (k, D), from labels (N,)."""
    sums = ClusterSums(k, points.shape[1], points.device)
    clusters = torch.from_numpy(labels).long().to(points.device)
    for span, x in points:
        sums.add(clusters[span], x)
    points.total(sums.flush())
    mean = sums.rows.sum(0) / points.shape[0]
    full = sums.counts > 0
    return torch.where(full[:, None], sums.rows / sums.counts.clamp(min=1)[:, None], mean).float()
