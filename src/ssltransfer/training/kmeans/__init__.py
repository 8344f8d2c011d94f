"""k-means over more points than fit in memory: Lloyd's algorithm, every point in every iteration, resumable."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssltransfer.artefacts.files import ArtefactError
from ssltransfer.training.checkpoint import Checkpoint
from ssltransfer.training.kmeans.lloyd import Empty, FaissStep, Step, Tally, TorchStep
from ssltransfer.training.kmeans.nearest import assign
from ssltransfer.training.kmeans.points import Matrix, Points, Source
from ssltransfer.training.kmeans.start import first_centroids, sample_size
from ssltransfer.training.memory import memory_budget

__all__ = ["Clustering", "Matrix", "Points", "Source", "assign", "kmeans", "memory_budget"]


@dataclass(frozen=True)
class Clustering:
    """The result of k-means.

    Attributes:
        centroids: float32 (k, D).
        labels: int32 (N,), nearest centroid of each point; ties go to the lowest.
        distances: float32 (N,), squared Euclidean distance to it.
        sizes: int64 (k,).
        objective: sum of the distances.
        curve: a row an iteration: `iteration`; `objective`, the sum of squared distances to the centroids it began
            with, and `mean` of it; `moved`, points in another cluster than before (null: not told by the backend);
            `empty`, clusters without a point.
        stopped: why.
        tier: where the points were.
    """

    centroids: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    sizes: np.ndarray
    objective: float
    curve: list[dict[str, Any]]
    stopped: str
    tier: str


def kmeans(
    source: Source,
    k: int,
    *,
    init: Literal["random", "k-means++"] | np.ndarray = "random",
    iterations: int = 50,
    tolerance: float = 1e-4,
    empty: Empty = "farthest",
    normalise: bool = False,
    backend: Literal["torch", "faiss"] = "torch",
    seed: int = 0,
    device: torch.device | None = None,
    budget: int | None = None,
    checkpoint: Checkpoint | None = None,
    where: str = "the points",
) -> Clustering:
    """Lloyd's k-means over all points (Lloyd 1982; Noroozi et al. 2018, implementation details, say no more).

    Equal points, options, threads and kind of device give equal bits, however much memory there is and however often
    the run was killed. Labels are those of exact distances, so the number of threads touches the curve's last digits
    only. Centroids, labels and objective of the result belong together: a last pass compares every point with the
    final centroids.

    Args:
        source: N points of D dimensions: a feature store or a `Matrix`.
        k: clusters.
        init: how the start is drawn, or centroids (k, D).
        iterations: at most.
        tolerance: stop when a smaller share of the points moves.
        empty: `farthest` restarts an empty cluster at the point farthest from its centroid, `keep` leaves its
            centroid, `error` ends the run.
        normalise: divide each point by its length.
        backend: `torch`, or `faiss` where all points fit in host memory.
        seed: of the start.
        device: where it is computed; default CPU.
        budget: bytes of host memory; default `memory_budget()`.
        checkpoint: where the state after an iteration is kept.
        where: what the points are called in messages.

    Raises:
        ArtefactError: k > N, fewer different points than k, a value that is not finite, an empty cluster where that
            is an error, or too little memory.
        Interrupted: told to end; the state is saved.
    """
    n, dims = source.shape
    if k > n:
        raise ArtefactError(f"{where}: {k} clusters of {n} points cannot be; use a k of at most {n}.")
    device, budget = device or torch.device("cpu"), memory_budget() if budget is None else budget
    extra = 4 * dims * sample_size(n, dims, k) if isinstance(init, str) and init == "k-means++" else 0
    keep = backend == "torch"
    points = Points(source, k, normalise=normalise, device=device, budget=budget, where=where, extra=extra, keep=keep)
    step: Step = TorchStep(points, k, empty) if keep else FaissStep(points, k, empty, seed, budget)
    print(f"k-means: {k} clusters of {points if keep else f'{n} points in memory'}, {backend} on {device}", flush=True)

    curve: list[dict[str, Any]] = []
    stopped = ""
    state = checkpoint.load() if checkpoint else None
    if state is not None:
        curve, stopped, step.labels = state["curve"], state["stopped"], state["labels"]
        centroids = state["centroids"].to(device)
        print(f"k-means: goes on after iteration {len(curve)}", flush=True)
    elif isinstance(init, str):
        centroids = first_centroids(points, k, init, seed)
    else:
        centroids = torch.from_numpy(np.array(init, np.float32)).to(device)

    while not stopped:
        began = time.monotonic()
        tally = step(centroids)
        centroids = tally.centroids
        curve.append(_row(len(curve) + 1, n, tally))
        stopped = _why_stop(curve, tally, n, iterations, tolerance)
        _say(curve[-1], n, iterations, stopped, time.monotonic() - began)
        if checkpoint and (stopped or checkpoint.due(len(curve))):
            checkpoint.save(_state(centroids, step.labels, curve, stopped), len(curve))

    labels, distances = assign(points, centroids)
    return Clustering(
        centroids=centroids.cpu().numpy(),
        labels=labels.numpy(),
        distances=distances.numpy(),
        sizes=np.bincount(labels.numpy(), minlength=k),
        objective=float(distances.sum(dtype=torch.float64)),
        curve=curve,
        stopped=stopped,
        tier=str(points.home or "disk"),
    )


def _row(iteration: int, n: int, tally: Tally) -> dict[str, Any]:
    return {
        "iteration": iteration,
        "objective": tally.objective,
        "mean": tally.objective / n,
        "moved": tally.moved,
        "empty": tally.empty,
    }


def _why_stop(curve: list[dict[str, Any]], tally: Tally, n: int, iterations: int, tolerance: float) -> str:
    if tally.moved == 0:
        return "no point moved"
    if tally.moved is not None and tally.moved < tolerance * n and not tally.refilled:
        return f"less than {tolerance:g} of the points moved"
    if len(curve) > 1 and curve[-1]["objective"] >= curve[-2]["objective"]:
        return "the objective no longer fell"
    return "iterations used up" if len(curve) >= iterations else ""


def _say(row: dict[str, Any], n: int, iterations: int, stopped: str, seconds: float) -> None:
    moved = "" if row["moved"] is None else f", {row['moved'] / n:.2%} moved"
    empty = f", {row['empty']} clusters empty" if row["empty"] else ""
    end = f"; ends: {stopped}" if stopped else ""
    print(
        f"k-means: iteration {row['iteration']}/{iterations}, mean squared distance {row['mean']:.6g}{moved}{empty}, "
        f"{seconds:.1f} s{end}",
        flush=True,
    )


def _state(centroids: Tensor, labels: Tensor | None, curve: list[dict[str, Any]], stopped: str) -> dict[str, Any]:
    return {
        "centroids": centroids.cpu(),
        "labels": None if labels is None else labels.cpu(),
        "curve": curve,
        "stopped": stopped,
    }
