"""Lloyd's algorithm: every point in every iteration, with a checkpoint after each."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.kmeans.assignment import assign
from ssltransfer.kmeans.init import expand_centroids, first_centroids, pca_init_bytes, pca_project, sample_size
from ssltransfer.kmeans.points import ArraySource, PointLoader, PointSource
from ssltransfer.kmeans.update import Empty, FaissStep, LloydStats, TorchStep
from ssltransfer.logs import logger
from ssltransfer.training.checkpoint import Checkpoint

Init = Literal["random", "k-means++", "pca"]
PCA_ITERATIONS, PCA_TOLERANCE = 20, 1e-3  # among principal components, where an iteration is cheap


@dataclass(frozen=True)
class Clustering:
    """The result of k-means.

    `curve` has one row per iteration: `iteration`, `objective` (the sum of squared distances to the centroids at its
    start), its `mean`, `moved` (the number of points that changed cluster, null with faiss) and `empty` (the number of
    clusters without points).
    """

    centroids: np.ndarray  # float32 (k, D)
    labels: np.ndarray  # int32 (N,), index of the nearest centroid of each point, the lowest one for ties
    distances: np.ndarray  # float32 (N,), squared Euclidean distance to it
    sizes: np.ndarray  # int64 (k,)
    objective: float  # sum of the distances
    curve: list[dict[str, Any]]
    stopped: str  # the reason
    residency: str  # where the points were kept: a device, or "disk"


def kmeans(
    source: PointSource,
    k: int,
    *,
    init: Init | np.ndarray = "random",
    max_iter: int = 50,
    tolerance: float = 1e-4,
    empty_cluster: Empty = "farthest",
    l2_normalize: bool = False,
    spherical: bool = False,
    backend: Literal["torch", "faiss"] = "torch",
    seed: int = 0,
    device: torch.device | None = None,
    budget: int | None = None,
    checkpoint: Checkpoint | None = None,
    where: str = "the points",
    rank: int = 0,
    world: int = 1,
    quiet: bool = False,
    save_curve: Callable[[list[dict[str, Any]]], None] = lambda curve: None,
) -> Clustering:
    """Lloyd's k-means over all points (Lloyd 1982; Noroozi et al. 2018 give no further details).

    Equal points, options, threads, ranks and kind of device give equal bits, independent of the memory and of how
    often the run was resumed. Labels are those of exact distances, so the number of threads affects only the last
    digits of the curve. A last pass assigns every point to the final centroids, so that centroids, labels and
    objective are consistent.

    Args:
        source: N points of D dimensions: a feature store or an `ArraySource`.
        k: number of clusters.
        init: method, or centroids (k, D). `pca` runs k-means++ and Lloyd's algorithm among the leading principal
            components first.
        max_iter: maximum number of iterations, in all dimensions.
        tolerance: stop when a smaller fraction of the points moves, or the objective falls by a smaller fraction.
        empty_cluster: `farthest` moves the centroid of an empty cluster to the point farthest from its own centroid,
            `keep` does not move it, `error` ends the run.
        l2_normalize: divide each point by its length.
        spherical: spherical k-means (Dhillon & Modha 2001): points and centroids have the length 1, so that the nearest
            centroid is the one of largest cosine.
        backend: `torch`, or `faiss` if all points fit in host memory.
        seed: of the initial centroids.
        device: default CPU.
        budget: bytes of host memory; default `memory_budget()`.
        checkpoint: for the state after an iteration.
        where: name of the points in messages.
        rank, world: this process and the size of torch's process group. Each process reads its part of the chunks;
            all return the same result.
        quiet: log at level DEBUG.
        save_curve: called with the rows so far after each iteration, in every process.

    Raises:
        ArtifactError: k > N, fewer than k distinct points, a value that is not finite, an empty cluster with
            `empty_cluster="error"`, or too little memory.
        Interrupted: by a signal; the state is saved.
    """
    n, dims = source.shape
    if k > n:
        raise ArtifactError(f"{where}: cannot form {k} clusters from {n} points; use k <= {n}.")
    device = device or torch.device("cpu")
    extra, in_torch = 0, backend == "torch"
    if isinstance(init, str) and init != "random":
        extra = 4 * dims * sample_size(n, dims, k) if init == "k-means++" else pca_init_bytes(n, dims)
    points = PointLoader(
        source,
        k,
        normalize=l2_normalize or spherical,
        device=device,
        budget=budget,
        where=where,
        extra=extra,
        keep=in_torch,
        rank=rank,
        world=world,
    )
    level = logging.DEBUG if quiet or rank else logging.INFO
    kept = points if in_torch else f"{n} points in memory"
    logger.log(level, f"k-means: {k} clusters of {kept}, {backend} on {device}")
    step: TorchStep | FaissStep
    if in_torch:
        step = TorchStep(points, k, empty_cluster, spherical=spherical)
    else:
        step = FaissStep(points, k, empty_cluster, seed, spherical=spherical)

    curve: list[dict[str, Any]] = []
    stopped = ""
    state = checkpoint.load() if checkpoint else None
    if state is not None:
        curve, stopped, step.labels = state["curve"], state["stopped"], state["labels"]
        centroids = state["centroids"].to(device)
        logger.log(level, f"k-means: resuming after iteration {len(curve)}")
    elif isinstance(init, str):
        centroids = _initialize(points, k, init, seed)
    else:
        centroids = torch.from_numpy(np.array(init, np.float32)).to(device)
    if spherical:
        centroids = F.normalize(centroids)

    while not stopped:
        started = time.monotonic()
        stats = step(centroids)
        centroids = stats.centroids
        row = {"iteration": len(curve) + 1, "objective": stats.objective, "mean": stats.objective / n}
        curve.append(row | {"moved": stats.moved, "empty": stats.empty})
        stopped = _why_stop(curve, stats, n, max_iter, tolerance)
        save_curve(curve)
        logger.log(level, _describe(curve[-1], n, max_iter, stopped, time.monotonic() - started))
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


def _initialize(points: PointLoader, k: int, init: Init, seed: int) -> Tensor:
    """Initial centroids, float32 (k, D)."""
    if init != "pca":
        return first_centroids(points, k, init, seed)
    started = time.monotonic()
    coarse = kmeans(
        ArraySource(pca_project(points, seed)),
        k,
        init="k-means++",
        max_iter=PCA_ITERATIONS,
        tolerance=PCA_TOLERANCE,
        seed=seed,
        device=points.device,
        budget=points.budget,
        where=points.where,
        quiet=True,
    )
    labels = torch.from_numpy(coarse.labels if points.rank == 0 else np.zeros_like(coarse.labels))
    centroids = expand_centroids(points, points.total(labels).numpy(), k)
    if points.rank == 0:
        logger.info(f"k-means: initialized among principal components, {time.monotonic() - started:.1f} s")
    return centroids


def _due(checkpoint: Checkpoint, points: PointLoader, step: int, stopped: str) -> bool:
    """Whether all ranks save now: when the first one is due, or any of them received a signal."""
    states = points.gather([(checkpoint.received_signal, checkpoint.due(step))])
    checkpoint.signal = next((signal for signal, _ in states if signal is not None), None)
    return bool(stopped) or states[0][1] or checkpoint.signal is not None


def _why_stop(curve: list[dict[str, Any]], stats: LloydStats, n: int, max_iter: int, tolerance: float) -> str:
    if stats.moved == 0:
        return "no point moved"
    if stats.moved is not None and stats.moved < tolerance * n and not stats.refilled:
        return f"less than {tolerance:g} of the points moved"
    if len(curve) > 1 and not stats.refilled:
        before, now = curve[-2]["objective"], curve[-1]["objective"]
        if now >= before:
            return "the objective did not decrease"
        if before - now < tolerance * before:
            return f"the objective decreased by less than {tolerance:g} of its value"
    return "maximum number of iterations" if len(curve) >= max_iter else ""


def _describe(row: dict[str, Any], n: int, max_iter: int, stopped: str, seconds: float) -> str:
    moved = "" if row["moved"] is None else f", {row['moved'] / n:.2%} moved"
    empty = f", {row['empty']} clusters empty" if row["empty"] else ""
    end = f"; stopped: {stopped}" if stopped else ""
    start = f"k-means: iteration {row['iteration']}/{max_iter}, mean squared distance {row['mean']:.6g}"
    return f"{start}{moved}{empty}, {seconds:.1f} s{end}"
