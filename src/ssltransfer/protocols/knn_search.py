"""Exact k-nearest-neighbor search by cosine similarity, in bounded memory."""

import numpy as np
import torch
from torch import Tensor

from ssltransfer.kmeans import PointLoader, PointSource
from ssltransfer.logs import logger
from ssltransfer.training.progress import Progress

QUERY_FLOATS = {"cpu": 8 << 20, "cuda": 64 << 20}
MOST_QUERIES = 2048


def knn_search(
    gallery: PointSource, queries: PointSource, k: int, device: torch.device, where: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """The k nearest of a gallery of N vectors to each of Q queries, by cosine; `where` names both in messages.

    Returns:
        Samples int64 (Q, k) with the nearest first, cosines float32 (Q, k), and a mapping of seconds and rates.

    Raises:
        ArtifactError: a value is not finite, or the memory is too small.
    """
    n, block = queries.shape[0], query_block(queries.shape, device)
    gallery_points = PointLoader(gallery, block, normalize=True, device=device, where=where[0])
    query_points = PointLoader(queries, block, normalize=True, device=device, where=where[1], keep=False)
    logger.info(f"gallery: {gallery_points}; {block} queries at a time")
    ids, cosines = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    progress = Progress("search", 0, -(-n // block), block)
    for start in range(0, n, block):
        span = slice(start, min(n, start + block))
        values, samples = topk_products(gallery_points, query_points.take(np.arange(span.start, span.stop)), k)
        ids[span], cosines[span] = samples.cpu().numpy(), values.cpu().numpy()
        progress.step()
        progress.log(f"{span.stop} of {n} queries")
    return ids, cosines, progress.close()


def query_block(shape: tuple[int, int], device: torch.device) -> int:
    """Queries per block. It depends on the shape and the kind of device only, so results are reproducible."""
    return max(1, min(shape[0], MOST_QUERIES, QUERY_FLOATS[device.type] // shape[1]))


@torch.inference_mode()
def topk_products(gallery: PointLoader, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest inner products of each query (Q, D) with the gallery (N, D); ties go to the lowest sample.

    Returns:
        Products float32 (Q, k), descending, and samples int64 (Q, k).
    """
    best = torch.empty(len(queries), 0, device=queries.device)
    ids = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    room = torch.empty(0, device=queries.device)  # allocated once: new pages for each block would cost as much as topk
    for span, block in gallery:
        size = len(queries) * len(block)
        room = room if len(room) >= size else torch.empty(size, device=queries.device)
        scores = torch.mm(queries, block.T, out=room[:size].view(len(queries), len(block)))
        if best.shape[1] < k:
            values, columns = _top(scores, min(k, scores.shape[1]))
            best, ids = _first(torch.cat([best, values], 1), torch.cat([ids, columns + span.start], 1), k)
        else:
            _improve(best, ids, scores, span.start)
    return best, ids


def _improve(best: Tensor, ids: Tensor, scores: Tensor, start: int) -> None:
    """Update the k best with the few larger scores of a later block; topk would read all of them."""
    k = best.shape[1]
    # A score equal to the k-th best ranks behind it, since blocks are in ascending order.
    rows = (scores.amax(1) > best[:, -1]).nonzero()[:, 0]
    if not len(rows):
        return
    if len(rows) > len(scores) / 4:  # then a copy of these rows costs more than it saves
        rows, chosen = torch.arange(len(scores), device=scores.device), scores
    else:
        chosen = scores[rows]
    hits, columns = (chosen > best[rows, -1:]).nonzero().unbind(1)
    counts = torch.bincount(hits, minlength=len(rows))
    slots = k + torch.arange(len(hits), device=hits.device) - (counts.cumsum(0) - counts)[hits]
    values = torch.full((len(rows), k + int(counts.max())), -torch.inf, device=best.device)
    samples = torch.zeros(values.shape, dtype=torch.int64, device=best.device)
    values[:, :k], samples[:, :k] = best[rows], ids[rows]
    values[hits, slots], samples[hits, slots] = chosen[hits, columns], columns + start
    best[rows], ids[rows] = _first(values, samples, k)


def _first(values: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row; ties are broken by the lowest sample, by a stable sort."""
    values, order = values.sort(dim=1, descending=True, stable=True)
    return values[:, :k].contiguous(), ids.gather(1, order[:, :k])


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """topk with ties broken by the lowest column; torch breaks them arbitrarily."""
    values, columns = scores.topk(k, 1)
    tied = ((scores >= values[:, -1:]).sum(1) > k).nonzero()[:, 0]
    if len(tied):
        columns[tied] = scores[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
    columns = columns.sort(1).values
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)
