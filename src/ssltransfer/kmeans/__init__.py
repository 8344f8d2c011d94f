"""k-means over more points than fit in memory: Lloyd's algorithm, every point in every iteration, resumable."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.kmeans.init import expand_centroids, first_centroids, pca_init_bytes, pca_project, sample_size
from ssltransfer.kmeans.lloyd import Empty, FaissStep, LloydStats, Step, TorchStep
from ssltransfer.kmeans.nearest import assign
from ssltransfer.kmeans.points import ArraySource, PointLoader, PointSource, SubsetSource
from ssltransfer.training.checkpoint import Checkpoint
from ssltransfer.training.memory_budget import memory_budget

Init = Literal["random", "k-means++", "pca"]
WARM_ITERATIONS, WARM_TOLERANCE = 20, 1e-3  # among principal components, where an iteration costs next to nothing

__all__ = [
    "ArraySource",
    "Clustering",
    "PointLoader",
    "PointSource",
    "SubsetSource",
    "assign",
    "kmeans",
    "memory_budget",
]


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
        residency: where the points were.
    """

    centroids: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    sizes: np.ndarray
    objective: float
    curve: list[dict[str, Any]]
    stopped: str
    residency: str


def kmeans(
    source: PointSource,
    k: int,
    *,
    init: Init | np.ndarray = "random",
    iterations: int = 50,
    tolerance: float = 1e-4,
    empty: Empty = "farthest",
    normalize: bool = False,
    backend: Literal["torch", "faiss"] = "torch",
    seed: int = 0,
    device: torch.device | None = None,
    budget: int | None = None,
    checkpoint: Checkpoint | None = None,
    where: str = "the points",
    rank: int = 0,
    world: int = 1,
    quiet: bool = False,
) -> Clustering:
    """Lloyd's k-means over all points (Lloyd 1982; Noroozi et al. 2018, implementation details, say no more).

    Equal points, options, threads, ranks and kind of device give equal bits, however much memory there is and however
    often the run was killed. Labels are those of exact distances, so the number of threads touches the curve's last
    digits only. Centroids, labels and objective of the result belong together: a last pass compares every point with
    the final centroids.

    Args:
        source: N points of D dimensions: a feature store or an `ArraySource`.
        k: clusters.
        init: how the start is drawn, or centroids (k, D). `pca` is k-means++ and Lloyd's iterations among the leading
            principal components, from where the iterations in all dimensions go on.
        iterations: at most, in all dimensions.
        tolerance: stop when a smaller share of the points moves, or the objective falls by a smaller share.
        empty: `farthest` restarts an empty cluster at the point farthest from its centroid, `keep` leaves its
            centroid, `error` ends the run.
        normalize: divide each point by its length.
        backend: `torch`, or `faiss` where all points fit in host memory.
        seed: of the start.
        device: where it is computed; default CPU.
        budget: bytes of host memory; default `memory_budget()`.
        checkpoint: where the state after an iteration is kept.
        where: what the points are called in messages.
        rank, world: this process among those of torch's process group that do this together; each reads its share of
            the source's chunks, and all have the result.
        quiet: print nothing.

    Raises:
        ArtifactError: k > N, fewer different points than k, a value that is not finite, an empty cluster where that
            is an error, or too little memory.
        Interrupted: told to end; the state is saved.
    """
    n, dims = source.shape
    if k > n:
        raise ArtifactError(f"{where}: {k} clusters of {n} points cannot be; use a k of at most {n}.")
    device, budget = device or torch.device("cpu"), memory_budget() if budget is None else budget
    extra = 0
    if isinstance(init, str) and init != "random":
        extra = 4 * dims * sample_size(n, dims, k) if init == "k-means++" else pca_init_bytes(n, dims)
    points = PointLoader(
        source,
        k,
        normalize=normalize,
        device=device,
        budget=budget,
        where=where,
        extra=extra,
        keep=backend == "torch",
        rank=rank,
        world=world,
    )
    say = _silent if quiet or rank else print
    kept = points if backend == "torch" else f"{n} points in memory"
    say(f"k-means: {k} clusters of {kept}, {backend} on {device}", flush=True)

    step: Step = TorchStep(points, k, empty) if backend == "torch" else FaissStep(points, k, empty, seed, budget)

    curve: list[dict[str, Any]] = []
    stopped = ""
    state = checkpoint.load() if checkpoint else None
    if state is not None:
        curve, stopped, step.labels = state["curve"], state["stopped"], state["labels"]
        centroids = state["centroids"].to(device)
        say(f"k-means: goes on after iteration {len(curve)}", flush=True)
    elif isinstance(init, str):
        centroids = _start(points, k, init, seed, budget)
    else:
        centroids = torch.from_numpy(np.array(init, np.float32)).to(device)

    while not stopped:
        began = time.monotonic()
        stats = step(centroids)
        centroids = stats.centroids
        curve.append(_row(len(curve) + 1, n, stats))
        stopped = _why_stop(curve, stats, n, iterations, tolerance)
        say(_said(curve[-1], n, iterations, stopped, time.monotonic() - began), flush=True)
        if checkpoint and _due(checkpoint, points, len(curve), stopped):
            labels = None if step.labels is None else points.total(step.labels.clone()).cpu()
            state = {"centroids": centroids.cpu(), "labels": labels, "curve": curve, "stopped": stopped}
            checkpoint.save(state, len(curve))

    residency = str(points.resident_on or "disk")
    points.release()
    labels, distances = assign(points, centroids)
    return Clustering(
        centroids=centroids.cpu().numpy(),
        labels=labels.numpy(),
        distances=distances.numpy(),
        sizes=np.bincount(labels.numpy(), minlength=k),
        objective=float(distances.sum(dtype=torch.float64)),
        curve=curve,
        stopped=stopped,
        residency=residency,
    )


def _start(points: PointLoader, k: int, init: Init, seed: int, budget: int) -> Tensor:
    """float32 (k, D), different points, or means of clusters found among principal components."""
    if init != "pca":
        return first_centroids(points, k, init, seed)
    began = time.monotonic()
    found = kmeans(
        ArraySource(pca_project(points, seed)),
        k,
        init="k-means++",
        iterations=WARM_ITERATIONS,
        tolerance=WARM_TOLERANCE,
        seed=seed,
        device=points.device,
        budget=budget,
        where=points.where,
        quiet=True,
    )
    labels = torch.from_numpy(found.labels if points.rank == 0 else np.zeros_like(found.labels))
    centroids = expand_centroids(points, points.total(labels).numpy(), k)
    if points.rank == 0:
        print(f"k-means: started among principal components, {time.monotonic() - began:.1f} s", flush=True)
    return centroids


def _due(checkpoint: Checkpoint, points: PointLoader, step: int, stopped: str) -> bool:
    """Whether all ranks save now: the first one says when, and a signal to any of them is one to all."""
    told = points.gather([(checkpoint.received_signal, checkpoint.due(step))])
    checkpoint.signal = next((heard for heard, _ in told if heard is not None), None)
    return bool(stopped) or told[0][1] or checkpoint.signal is not None


def _silent(*words: object, flush: bool = False) -> None:
    """What ranks other than the first say."""


def _row(iteration: int, n: int, stats: LloydStats) -> dict[str, Any]:
    return {
        "iteration": iteration,
        "objective": stats.objective,
        "mean": stats.objective / n,
        "moved": stats.moved,
        "empty": stats.empty,
    }


def _why_stop(curve: list[dict[str, Any]], stats: LloydStats, n: int, iterations: int, tolerance: float) -> str:
    if stats.moved == 0:
        return "no point moved"
    if stats.moved is not None and stats.moved < tolerance * n and not stats.refilled:
        return f"less than {tolerance:g} of the points moved"
    if len(curve) > 1 and not stats.refilled:
        before, now = curve[-2]["objective"], curve[-1]["objective"]
        if now >= before:
            return "the objective no longer fell"
        if before - now < tolerance * before:
            return f"the objective fell by less than {tolerance:g} of itself"
    return "iterations used up" if len(curve) >= iterations else ""


def _said(row: dict[str, Any], n: int, iterations: int, stopped: str, seconds: float) -> str:
    moved = "" if row["moved"] is None else f", {row['moved'] / n:.2%} moved"
    empty = f", {row['empty']} clusters empty" if row["empty"] else ""
    end = f"; ends: {stopped}" if stopped else ""
    return (
        f"k-means: iteration {row['iteration']}/{iterations}, mean squared distance {row['mean']:.6g}{moved}{empty}, "
        f"{seconds:.1f} s{end}"
    )
