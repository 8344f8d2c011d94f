"""Where the centroids start: k different points."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.kmeans.nearest import ROUNDING
from ssltransfer.kmeans.points import Points

SAMPLE_BYTES = 512 << 20


def sample_size(n: int, dims: int, k: int) -> int:
    """Points that k-means++ draws from: what 512 MB of float32 hold, 2 k at least, all where they are fewer."""
    return min(n, max(2 * k, SAMPLE_BYTES // (4 * dims)))


@torch.inference_mode()
def first_centroids(points: Points, k: int, how: Literal["random", "k-means++"], seed: int) -> Tensor:
    """k points, no two of them equal, as a function of the seed.

    random: uniformly. k-means++: each with probability proportional to its squared distance from those before
    (Arthur & Vassilvitskii, SODA 2007), among a uniform sample of `sample_size` points.

    Returns:
        float32 (k, D).

    Raises:
        ArtifactError: there are fewer different points than k.
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
            f"{points.where}: of {n} points {amount}, too few for {k} clusters; use a smaller k or a model whose "
            "features differ."
        )
    return points.take(np.array(list(chosen.values())))


def _plus_plus(x: Tensor, k: int, uniform: Tensor) -> list[int]:
    """At most k rows of x by D^2 sampling; fewer where all others equal a chosen one. Overwrites x."""
    x -= x.mean(0)
    squares = torch.linalg.vector_norm(x, dim=1).square_()
    chosen = [int(uniform[0] * len(x))]
    least = torch.full_like(squares, torch.inf)
    for draw in uniform[1:].tolist():
        last = chosen[-1]
        distance = squares - 2 * (x @ x[last]) + squares[last]
        # Below this a distance is rounding: a copy of a chosen point must not be drawn.
        distance = distance.where(distance > ROUNDING * (squares + squares[last]), 0.0)
        least = torch.minimum(least, distance)
        mass = least.double().cumsum(0)
        if mass[-1] == 0:
            break
        chosen.append(int(torch.searchsorted(mass, (draw * mass[-1])[None], right=True)))
    return chosen
