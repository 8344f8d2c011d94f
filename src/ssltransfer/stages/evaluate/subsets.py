"""Which training pictures serve which purpose."""

from __future__ import annotations

import numpy as np

from ssltransfer.data.draws import seed_of


def stratified(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Samples drawn from each class alike.

    Args:
        labels: int (N,), class of each sample.
        share: of a class's samples, rounded; of two and more samples at least one is drawn and one left.
        seed: of the draw.

    Returns:
        int64, rising.
    """
    chosen = []
    for label in np.unique(labels):
        there = np.flatnonzero(labels == label)
        count = min(max(1, round(share * len(there))), len(there) - 1)
        draw = np.random.default_rng(seed_of(seed, "stratified", int(label)))
        chosen.append(draw.permutation(there)[:count])
    return np.sort(np.concatenate(chosen))
