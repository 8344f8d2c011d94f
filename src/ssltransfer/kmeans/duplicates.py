"""Near duplicates within clusters (SemDeDup: Abbas et al. 2023)."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ssltransfer.kmeans.points import PointSource, SubsetSource
from ssltransfer.training.memory_budget import memory_budget

TILE = 1024  # rows of a cluster that are compared with as many others at a time


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

    Clusters are read in groups, and each group reads the source once. A point needs 8 bytes per dimension: as stored,
    and a copy that becomes float32. A group of several clusters needs at most half of the budget. A cluster that does
    not fit is read in pieces of half as many points (at least 1024), and every pair of pieces is compared: 8 bytes for
    one of them and 4 for the other, three eighths of the budget. The rest is for chunks of the source, similarities,
    and 16 bytes per point. The result does not depend on the budget, because similarities are computed in equal tiles.

    Args:
        labels: int (N,).
        distances: float (N,), from the centroids.
        max_similarity: cosine.
        budget: bytes of host memory; default `memory_budget()`.

    Returns:
        int64 (N,): for each near duplicate the first point that is too similar, -1 for the points that are kept.
    """
    duplicate_of = np.full(len(labels), -1, np.int64)

    def compare(ids: np.ndarray, x: Tensor, earlier: np.ndarray, y: Tensor) -> None:
        first = _first_similar(x, y, max_similarity, same=ids is earlier)
        duplicate_of[ids[first >= 0]] = earlier[first[first >= 0]]

    order = np.lexsort((distances, labels))
    most = (memory_budget() if budget is None else budget) // (16 * source.shape[1])
    size = max(1, most // 2 // TILE) * TILE  # of a piece; whole tiles

    def compare_clusters(ids: np.ndarray) -> None:
        rows_of = _unit_rows(source, ids, device)
        for cluster in np.split(ids, np.flatnonzero(np.diff(labels[ids])) + 1):
            x = rows_of(cluster)
            compare(cluster, x, cluster, x)

    def compare_pieces(piece: np.ndarray, before: list[np.ndarray]) -> None:
        x = _unit_rows(source, piece, device)(piece)
        compare(piece, x, piece, x)
        for earlier in reversed(before):  # what the first one finds is kept
            compare(piece, x, earlier, _unit_rows(source, earlier, device)(earlier))

    # Functions, so that their rows are freed before the next ones are read.
    for span in _groups(np.bincount(labels), most):
        ids = order[span.start : span.stop]
        if len(ids) <= most:
            compare_clusters(ids)
            continue
        pieces = np.split(ids, range(size, len(ids), size))
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


def _first_similar(x: Tensor, y: Tensor, max_similarity: float, *, same: bool) -> np.ndarray:
    """For each row of x the index of the first row of y that is too similar, or -1; int64 (n,).

    Rows have the length 1. `same`: y is x, and only the rows before each row count.
    """
    found = torch.full((len(x),), -1, device=x.device)
    for start in range(0, len(x), TILE):
        rows = slice(start, start + TILE)
        for first in reversed(range(0, start + 1 if same else len(y), TILE)):
            similar = x[rows] @ y[first : first + TILE].T > max_similarity
            if same and first == start:
                similar.tril_(-1)
            found[rows] = torch.where(similar.any(1), first + similar.byte().argmax(1), found[rows])
    return found.cpu().numpy()
