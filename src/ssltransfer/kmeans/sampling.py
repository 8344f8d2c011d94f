"""Balanced sampling from clusters of clusters (Vo et al. 2024)."""

from collections.abc import Sequence

import numpy as np
import torch

from ssltransfer.data.rng import SampleRNG, seed_of


def balanced_sample(
    labels: np.ndarray,
    parents: Sequence[np.ndarray],
    total: int,
    *,
    seed: int = 0,
    distances: np.ndarray | None = None,
) -> np.ndarray:
    """Choose points so that the clusters of each level get as equal shares as their sizes allow.

    The total is divided among the clusters of the highest level, the share of each among its clusters of the next lower
    level, and so on. A cluster that is smaller than its share is taken whole, and the others get the rest.

    Args:
        labels: int (N,), cluster of each point; -1: never chosen.
        parents: for each higher level, from low to high: int (k,), the cluster of each cluster of the level below.
        total: number of points; all of them if there are not more.
        seed: of the random choice.
        distances: float (N,), from the centroids: choose the nearest points of each cluster instead of random ones.

    Returns:
        Ascending int64 ids of `total` points.
    """
    k = max(len(parents[0]) if parents else 0, int(labels.max(initial=-1)) + 1)
    sizes = [np.bincount(labels[labels >= 0], minlength=k)]
    for above in parents:
        sizes.append(np.bincount(above, weights=sizes[-1]).astype(np.int64))
    shares = fair_shares(sizes[-1], total, _shuffled(seed, "clusters", len(sizes[-1])))
    for level in range(len(parents) - 1, -1, -1):
        below, above = sizes[level], parents[level]
        order = _shuffled(seed, f"clusters {level}", len(below))
        order = order[np.argsort(above[order], kind="stable")]  # children by parent, in random order
        cuts = np.searchsorted(above[order], np.arange(len(shares) + 1))
        divided = np.zeros(len(below), np.int64)
        for parent, share in enumerate(shares.tolist()):
            children = order[cuts[parent] : cuts[parent + 1]]
            divided[children] = fair_shares(below[children], share, np.arange(len(children)))
        shares = divided
    key = _shuffled(seed, "points", len(labels)) if distances is None else distances
    chosen = rank_in_cluster(labels, key, k) < np.append(shares, 0)[labels]  # -1 is the appended 0
    return np.flatnonzero(chosen)


def fair_shares(sizes: np.ndarray, total: int, order: np.ndarray) -> np.ndarray:
    """Divide `total` among groups: int64 shares of at most `sizes` that are as equal as possible.

    What an equal division leaves over goes to the first groups in `order`, one to each.

    >>> fair_shares(np.array([1, 100, 100, 5]), 20, np.array([2, 1, 0, 3])).tolist()
    [1, 7, 7, 5]
    """
    if total >= sizes.sum():
        return sizes.astype(np.int64)
    ascending = np.sort(sizes).astype(np.int64)
    # With the level of group i, all smaller groups are taken whole and all others get as much.
    needed = np.append(0, ascending.cumsum()[:-1]) + ascending * np.arange(len(sizes), 0, -1)
    whole = int(np.searchsorted(needed, total, side="right"))  # groups that are taken whole
    level = (total - int(ascending[:whole].sum())) // (len(sizes) - whole)
    shares: np.ndarray = np.minimum(sizes, level).astype(np.int64)
    open_groups = order[sizes[order] > level]
    shares[open_groups[: total - int(shares.sum())]] += 1
    return shares


def rank_in_cluster(labels: np.ndarray, key: np.ndarray, k: int) -> np.ndarray:
    """Position of each point in its cluster when ordered by `key` (ties: by id), int64 (N,). Labels may be -1."""
    order = np.lexsort((key, labels))
    starts = np.searchsorted(labels[order], np.arange(-1, k))
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - starts[labels[order] + 1]
    return ranks


def _shuffled(seed: int, purpose: str, n: int) -> np.ndarray:
    """A permutation of 0..n-1 that is a function of seed and purpose."""
    rng = SampleRNG(seed_of(seed, "curate"), 0, torch.zeros(1, dtype=torch.int64))
    return np.asarray(rng.permutation(purpose, n)[0])
