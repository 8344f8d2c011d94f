"""Near duplicates within clusters (SemDeDup: Abbas et al. 2023)."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ssltransfer.kmeans.points import PointSource, SubsetSource
from ssltransfer.training.memory_budget import memory_budget

BLOCK_FLOATS = 1 << 20  # similarities that are computed at a time


@torch.inference_mode()
def near_duplicates(
    source: PointSource,
    labels: np.ndarray,
    distances: np.ndarray,
    max_similarity: float,
    *,
    device: torch.device | None = None,
    budget: int | None = None,
) -> np.ndarray:
    """Find the points that are near duplicates of a point of their cluster that is nearer to its centroid.

    As in SemDeDup only points of one cluster are compared, and a point is a duplicate if its cosine similarity to any
    point before it exceeds `max_similarity`. So of a group of near duplicates exactly one is kept. That it is the one
    nearest to the centroid (ties: the first) is chosen; the paper found that the choice matters little.

    Clusters are read in groups that fit in a quarter of the budget, and each group reads the source once. A cluster
    that does not fit is read in pieces, and every pair of pieces is compared.

    Args:
        labels: int (N,).
        distances: float (N,), from the centroids.
        max_similarity: cosine.
        budget: bytes of host memory; default `memory_budget()`.

    Returns:
        int64 (N,): a point before each near duplicate that is too similar, -1 for the points that are kept.
    """
    duplicate_of = np.full(len(labels), -1, np.int64)

    def compare(ids: np.ndarray, x: Tensor, earlier: np.ndarray, y: Tensor) -> None:
        before = _most_similar(x, y, max_similarity, same=ids is earlier)
        duplicate_of[ids[before >= 0]] = earlier[before[before >= 0]]

    order = np.lexsort((distances, labels))
    room = (memory_budget() if budget is None else budget) // 4  # beside a copy of the largest cluster as float32
    most = max(2, room // (source.shape[1] * source.dtype.itemsize))

    def compare_clusters(ids: np.ndarray) -> None:
        rows_of = _unit_rows(source, ids, device)
        for cluster in np.split(ids, np.flatnonzero(np.diff(labels[ids])) + 1):
            x = rows_of(cluster)
            compare(cluster, x, cluster, x)

    def compare_pieces(piece: np.ndarray, before: list[np.ndarray]) -> None:
        x = _unit_rows(source, piece, device)(piece)
        compare(piece, x, piece, x)
        for earlier in before:
            compare(piece, x, earlier, _unit_rows(source, earlier, device)(earlier))

    # Functions, so that their rows are freed before the next ones are read.
    for span in _groups(np.bincount(labels), most):
        ids = order[span.start : span.stop]
        if len(ids) <= most:
            compare_clusters(ids)
            continue
        pieces = np.split(ids, range(size := max(1, most // 4), len(ids), size))  # two of them, and copies
        for number, piece in enumerate(pieces):
            compare_pieces(piece, pieces[:number])
    return duplicate_of


def _groups(sizes: np.ndarray, most: int) -> Iterator[range]:
    """Consecutive clusters of at most `most` points in total, as ranges of the points in the order of the clusters.

    A cluster of more points is a range of its own.
    """
    start = stop = 0
    for size in sizes.tolist():
        if stop > start and stop + size - start > most:
            yield range(start, stop)
            start = stop
        stop += size
    yield range(start, stop)


def _unit_rows(source: PointSource, ids: np.ndarray, device: torch.device | None) -> Callable[[np.ndarray], Tensor]:
    """Read some points once; the function returns float32 (n, D) of some of them, divided by their lengths."""
    ascending = np.sort(ids)
    rows = SubsetSource(source, ascending).read(slice(None))

    def unit(part: np.ndarray) -> Tensor:
        x = torch.from_numpy(rows[np.searchsorted(ascending, part)]).to(device).float()
        return x.div_(torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_(min=1e-12))

    return unit


def _most_similar(x: Tensor, y: Tensor, max_similarity: float, *, same: bool) -> np.ndarray:
    """For each row of x the index of the most similar row of y if it is too similar, else -1; int64 (n,).

    Rows have the length 1. `same`: y is x, and only the rows before each row count.
    """
    found = np.full(len(x), -1)
    step = max(1, BLOCK_FLOATS // max(1, len(y)))
    for start in range(0, len(x), step):
        block = x[start : start + step]
        similarity = block @ (y[: start + len(block)] if same else y).T
        if same:
            itself_and_later = torch.ones_like(similarity, dtype=torch.bool).triu(start)
            similarity.masked_fill_(itself_and_later, -2.0)
        most, index = similarity.max(1)
        found[start : start + step] = torch.where(most > max_similarity, index, -1).cpu().numpy()
    return found
