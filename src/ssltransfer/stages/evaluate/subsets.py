"""Which training pictures serve which purpose."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ssltransfer.config.protocols import Labelled
from ssltransfer.data.draws import seed_of


def stratified(labels: np.ndarray, count: float, seed: int, *, keep: int = 0) -> np.ndarray:
    """Samples drawn from each class alike.

    Args:
        labels: int (N,), class of each sample.
        count: below 1 a share of a class's samples, rounded and at least one; else so many samples, or all.
        seed: of the draw.
        keep: samples of each class that are not drawn.

    Returns:
        int64, rising.
    """
    chosen = []
    for label in np.unique(labels):
        there = np.flatnonzero(labels == label)
        wanted = max(1, round(count * len(there))) if count < 1 else int(count)
        draw = np.random.default_rng(seed_of(seed, "stratified", int(label)))
        chosen.append(draw.permutation(there)[: min(wanted, len(there) - keep)])
    return np.sort(np.concatenate(chosen))


def labelled(labels: np.ndarray, options: Labelled | None, seeds: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The training pictures that have labels, int64 and rising, for each seed; where nothing is said all, once.

    Args:
        labels: int (N,), class of each training picture.
        options: how many.
        seeds: of the draws.
    """
    if options is None:
        yield np.arange(len(labels))
    else:
        for seed in seeds:
            yield stratified(labels, options.share or options.each or 0, seed)
