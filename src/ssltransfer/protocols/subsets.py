"""Which training images serve which purpose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.base import NameFile
from ssltransfer.config.protocols import LabelSubset
from ssltransfer.data.rng import seed_of


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


def labeled_subsets(
    paths: Sequence[str], labels: np.ndarray, options: LabelSubset | None, seeds: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """The training images that have labels, int64 and rising, for each seed; where nothing is said all, once.

    Args:
        paths: of the training images.
        labels: int (N,), class of each.
        options: how many, or which list.
        seeds: of the draws.

    Raises:
        ArtifactError: a listed image is not there, or its name stands for several.
    """
    if options is None:
        yield np.arange(len(labels))
        return
    for seed in seeds:
        yield (
            _listed(paths, options.file)
            if options.file
            else stratified(labels, options.fraction or options.per_class or 0, seed)
        )


def _listed(paths: Sequence[str], listing: NameFile) -> np.ndarray:
    """Places of the images that a list names by path, or by file name as SimCLR's lists do."""
    place = {path: number for number, path in enumerate(paths)}
    by_name: dict[str, list[int]] = {}
    for number, path in enumerate(paths):
        by_name.setdefault(path.rpartition("/")[2], []).append(number)
    found = set()
    for name in listing.names():
        places = [place[name]] if name in place else by_name.get(name, [])
        if len(places) != 1:
            fault = "names several images of the training set; give paths" if places else "is not in the training set"
            raise ArtifactError(f"{listing.path}: {name} {fault}; give the list that belongs to this set.")
        found.add(places[0])
    return np.array(sorted(found), np.int64)
