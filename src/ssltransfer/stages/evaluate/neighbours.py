"""Nearest neighbours by cosine (Abbasi Koohpayegani et al. 2020; protocols 4.6): gallery train, queries test, exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssltransfer.artefacts.files import ArtefactError
from ssltransfer.config.protocols import Neighbours
from ssltransfer.stages.evaluate.base import Classes, Given, Outcome, classes_of, spread_ids
from ssltransfer.stages.evaluate.scores import accuracy_of, answers
from ssltransfer.training.kmeans import Points, memory_budget
from ssltransfer.training.progress import Progress

EXAMPLES, SHOWN = 8, 5  # test pictures in the report, and neighbours of each
QUERY_FLOATS = {"cpu": 8 << 20, "cuda": 64 << 20}
MOST_QUERIES = 2048


def evaluate(given: Given) -> Outcome:
    """Accuracy of the class of the nearest training picture, or of the majority of the k nearest.

    Nothing is drawn, so there is one number whatever the seeds.

    Raises:
        ArtefactError: k is more than there are training pictures.
    """
    options = given.spec.protocol
    assert isinstance(options, Neighbours) and given.features is not None
    classes = classes_of(given.train, given.test, (given.spec.train, given.spec.test))
    if options.k > len(classes.train):
        raise ArtefactError(
            f"{given.spec.train}: k is {options.k} but there are {len(classes.train)} pictures; lower k."
        )
    device = given.devices.device
    k = max(options.k, min(SHOWN, len(classes.train)))
    queries = query_block(given.features[1].shape, device)
    gallery, asked = (
        Points(store, queries, normalise=True, device=device, budget=memory_budget(), where=name, keep=keep)
        for store, name, keep in zip(given.features, (given.spec.train, given.spec.test), (True, False), strict=True)
    )
    print(f"gallery: {gallery}; {queries} queries at a time; {given.devices}", flush=True)
    n = len(classes.test)
    ids, similarity = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    progress = Progress("neighbours", 0, -(-n // queries), queries)
    for start in range(0, n, queries):
        span = slice(start, min(n, start + queries))
        values, found = nearest(gallery, asked.take(np.arange(span.start, span.stop)), k)
        ids[span], similarity[span] = found.cpu().numpy(), values.cpu().numpy()
        progress.step(0.0)
        progress.say(f"{span.stop} of {n} queries")
    predicted = majority(classes.train[ids[:, : options.k]])
    details = answers(classes, predicted) | {"examples": _examples(given, classes, ids, similarity)}
    return Outcome({"accuracy": [accuracy_of(classes, predicted)]}, classes.chance, details, progress.close())


def query_block(shape: tuple[int, int], device: torch.device) -> int:
    """Queries compared at a time: a function of the shape and the kind of device, so that results are."""
    return max(1, min(shape[0], MOST_QUERIES, QUERY_FLOATS[device.type] // shape[1]))


@torch.inference_mode()
def nearest(gallery: Points, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
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


def majority(labels: np.ndarray) -> np.ndarray:
    """The commonest label of each row (Q, k), nearest first; of equally common ones the nearest."""
    votes = np.stack([(labels == column[:, None]).sum(1) for column in labels.T], axis=1)
    winners: np.ndarray = labels[np.arange(len(labels)), votes.argmax(1)]
    return winners


def _examples(given: Given, classes: Classes, ids: np.ndarray, similarity: np.ndarray) -> list[dict[str, Any]]:
    """A few test pictures and the training pictures nearest to them."""
    return [
        {
            "test": sample,
            "path": given.test.paths[sample],
            "class": classes.names[classes.test[sample]],
            "neighbours": [
                {
                    "train": int(near),
                    "path": given.train.paths[near],
                    "class": classes.names[classes.train[near]],
                    "similarity": round(float(value), 4),
                }
                for near, value in zip(ids[sample, :SHOWN], similarity[sample, :SHOWN], strict=True)
            ],
        }
        for sample in spread_ids(len(ids), EXAMPLES)
    ]
