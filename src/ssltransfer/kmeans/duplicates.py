"""Near duplicates within clusters (SemDeDup: Abbas et al. 2023)."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.kmeans.points import PointSource, SubsetSource
from ssltransfer.training.memory_budget import memory_budget

BLOCK_FLOATS = 4 << 20  # similarities that are computed at a time


@torch.inference_mode()
def near_duplicates(
    source: PointSource,
    labels: np.ndarray,
    distances: np.ndarray,
    max_similarity: float,
    *,
    device: torch.device | None = None,
    budget: int | None = None,
    where: str = "the points",
) -> np.ndarray:
    """Find the points that are near duplicates of a point of their cluster that is nearer to its centroid.

    As in SemDeDup only points of one cluster are compared, and a point is a duplicate if its cosine similarity to any
    point before it exceeds `max_similarity`. So of a group of near duplicates exactly one is kept. That it is the one
    nearest to the centroid (ties: the first) is chosen; the paper found that the choice matters little.

    Clusters are read in groups that fit in half of the budget. Every group reads the source once.

    Args:
        labels: int (N,).
        distances: float (N,), from the centroids.
        max_similarity: cosine.
        budget: bytes of host memory; default `memory_budget()`.

    Returns:
        int64 (N,): the most similar point before each near duplicate, -1 for the points that are kept.

    Raises:
        ArtifactError: the points of a cluster do not fit in memory.
    """
    duplicate_of = np.full(len(labels), -1, np.int64)
    order = np.lexsort((distances, labels))
    room = (memory_budget() if budget is None else budget) // 2
    row_bytes = source.shape[1] * source.dtype.itemsize
    for clusters in _groups(np.bincount(labels), room // row_bytes, where):
        ids = order[clusters.start : clusters.stop]
        ascending = np.sort(ids)
        rows = SubsetSource(source, ascending).read(slice(None))
        for cluster in np.split(ids, np.flatnonzero(np.diff(labels[ids])) + 1):
            x = torch.from_numpy(rows[np.searchsorted(ascending, cluster)]).to(device)
            before = _most_similar_before(F.normalize(x.float()), max_similarity).numpy()
            duplicate_of[cluster[before >= 0]] = cluster[before[before >= 0]]
    return duplicate_of


def _groups(sizes: np.ndarray, most: int, where: str) -> Iterator[range]:
    """Consecutive clusters of at most `most` points in total, as ranges of the points in the order of the clusters."""
    start = stop = 0
    for cluster, size in enumerate(sizes.tolist()):
        if size > most:
            raise ArtifactError(
                f"{where}: cluster {cluster} has {size} points, more than fit in memory to find near duplicates; use a "
                "larger k, or raise SSLTRANSFER_MEMORY_MB."
            )
        if stop + size - start > most:
            yield range(start, stop)
            start = stop
        stop += size
    yield range(start, stop)


def _most_similar_before(x: Tensor, max_similarity: float) -> Tensor:
    """Index of the most similar row before each row if it is too similar, else -1; int64 (n,), of unit rows (n, D)."""
    found = torch.full((len(x),), -1)
    step = max(1, BLOCK_FLOATS // max(1, len(x)))
    for start in range(0, len(x), step):
        block = x[start : start + step]
        similarity = block @ x[: start + len(block)].T
        later = torch.ones_like(similarity, dtype=torch.bool).triu(start)  # itself and the rows after it
        most, index = similarity.masked_fill_(later, -2.0).max(1)
        found[start : start + step] = torch.where(most > max_similarity, index, -1).cpu()
    return found
