"""Exact search for the nearest of many vectors by cosine, in bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssltransfer.kmeans import PointLoader, PointSource, memory_budget
from ssltransfer.training.progress import Progress

QUERY_FLOATS = {"cpu": 8 << 20, "cuda": 64 << 20}
MOST_QUERIES = 2048


def knn_search(
    gallery: PointSource, asked: PointSource, k: int, device: torch.device, where: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """The k nearest of a gallery, by cosine.

    Args:
        gallery: N vectors.
        asked: Q vectors.
        k: at most N.
        device: where it is computed.
        where: what gallery and queries are called in messages.

    Returns:
        Samples int64 (Q, k), nearest first; cosines float32 (Q, k); what varies between equal runs.

    Raises:
        ArtifactError: a value is not finite, or the memory is too small.
    """
    n, block = asked.shape[0], query_block(asked.shape, device)
    points, queries = (
        PointLoader(source, block, normalize=True, device=device, budget=memory_budget(), where=name, keep=keep)
        for source, name, keep in zip((gallery, asked), where, (True, False), strict=True)
    )
    print(f"gallery: {points}; {block} queries at a time", flush=True)
    ids, cosines = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    progress = Progress("search", 0, -(-n // block), block)
    for start in range(0, n, block):
        span = slice(start, min(n, start + block))
        values, found = topk_products(points, queries.take(np.arange(span.start, span.stop)), k)
        ids[span], cosines[span] = found.cpu().numpy(), values.cpu().numpy()
        progress.step()
        progress.log(f"{span.stop} of {n} queries")
    return ids, cosines, progress.close()


def query_block(shape: tuple[int, int], device: torch.device) -> int:
    """Queries compared at a time: a function of the shape and the kind of device, so that results are."""
    return max(1, min(shape[0], MOST_QUERIES, QUERY_FLOATS[device.type] // shape[1]))


@torch.inference_mode()
def topk_products(gallery: PointLoader, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest inner products of each query with the gallery; equal ones by the lowest sample.

    Args:
        gallery: N points of D dimensions, a block at a time.
        queries: float32 (Q, D).
        k: at most N.

    Returns:
        Products float32 (Q, k), falling, and samples int64 (Q, k).
    """
    best = torch.empty(len(queries), 0, device=queries.device)
    ids = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    room = torch.empty(0, device=queries.device)  # taken once: fresh pages for each block would cost as much as topk
    for span, block in gallery:
        size = len(queries) * len(block)
        room = room if len(room) >= size else torch.empty(size, device=queries.device)
        scores = torch.mm(queries, block.T, out=room[:size].view(len(queries), len(block)))
        if best.shape[1] < k:
            best, ids = _merged(best, ids, scores, span.start, k)
        else:
            _improve(best, ids, scores, span.start)
    return best, ids


def _merged(best: Tensor, ids: Tensor, scores: Tensor, start: int, k: int) -> tuple[Tensor, Tensor]:
    """The k best of those that were there and of a later block's, whose first sample is `start`."""
    values, found = _top(scores, min(k, scores.shape[1]))
    return _first(torch.cat([best, values], 1), torch.cat([ids, found + start], 1), k)


def _improve(best: Tensor, ids: Tensor, scores: Tensor, start: int) -> None:
    """Put what is better in a later block among the k best: a few of its scores, which topk would all look at."""
    k = best.shape[1]
    # What only equals the k-th best comes after it, since blocks come in rising order.
    rows = (scores.amax(1) > best[:, -1]).nonzero()[:, 0]
    if not len(rows):
        return
    chosen = scores if len(rows) > len(scores) / 4 else scores[rows]
    if chosen is scores:
        rows = torch.arange(len(scores), device=scores.device)
    there, columns = (chosen > best[rows, -1:]).nonzero().unbind(1)
    counts = torch.bincount(there, minlength=len(rows))
    slots = k + torch.arange(len(there), device=there.device) - (counts.cumsum(0) - counts)[there]
    values = torch.full((len(rows), k + int(counts.max())), -torch.inf, device=best.device)
    found = torch.zeros(values.shape, dtype=torch.int64, device=best.device)
    values[:, :k], found[:, :k] = best[rows], ids[rows]
    values[there, slots], found[there, slots] = chosen[there, columns], columns + start
    best[rows], ids[rows] = _first(values, found, k)


def _first(values: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row; a stable sort leaves equal ones by the lowest sample."""
    values, order = values.sort(dim=1, descending=True, stable=True)
    return values[:, :k].contiguous(), ids.gather(1, order[:, :k])


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """topk whose equal values come by the lowest column: torch's own takes any of those at the edge."""
    values, columns = scores.topk(k, 1)
    tied = ((scores >= values[:, -1:]).sum(1) > k).nonzero()[:, 0]
    if len(tied):
        columns[tied] = scores[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
    columns = columns.sort(1).values
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)
