"""Subsets of the training images: stratified draws and lists of files."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.base import NameFile
from ssltransfer.config.protocols import LabelSubset
from ssltransfer.data.rng import seed_of


def stratified(labels: np.ndarray, count: float, seed: int, *, keep: int = 0) -> np.ndarray:
    """Draw samples from each class of `labels` (N,); int64, ascending.

    Args:
        labels: class of each sample.
        count: below 1 a fraction of each class, rounded, at least one sample; else a number of samples per class.
        seed: of the draw.
        keep: samples of each class that are never drawn.
    """
    chosen = []
    for label in np.unique(labels):
        samples = np.flatnonzero(labels == label)
        number = max(1, round(count * len(samples))) if count < 1 else int(count)
        rng = np.random.default_rng(seed_of(seed, "stratified", int(label)))
        chosen.append(rng.permutation(samples)[: min(number, len(samples) - keep)])
    return np.sort(np.concatenate(chosen))


def labeled_subsets(
    paths: Sequence[str], labels: np.ndarray, options: LabelSubset | None, seeds: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """The labeled training images of each seed, int64, ascending; without options all images, once.

    Raises:
        ArtifactError: a listed image is not in the set, or its name is ambiguous.
    """
    if options is None:
        yield np.arange(len(labels))
        return
    for seed in seeds:
        if options.file:
            yield _listed(paths, options.file)
        else:
            yield stratified(labels, options.fraction or options.per_class or 0, seed)


def _listed(paths: Sequence[str], listing: NameFile) -> np.ndarray:
    """Positions of the images that a file lists by path, or by file name as SimCLR's lists do."""
    positions = defaultdict(list)
    for position, path in enumerate(paths):
        positions[path.rpartition("/")[2]].append(position)
    positions |= {path: [position] for position, path in enumerate(paths)}
    listed = set()
    for name in listing.names(positions.__contains__):
        if len(positions[name]) != 1:
            fault = "names several images of the training set; give paths"
            fault = fault if positions[name] else "is not in the training set"
            raise ArtifactError(f"{listing.path}: {name} {fault}; use a list of this dataset.")
        listed.add(positions[name][0])
    return np.array(sorted(listed), np.int64)
