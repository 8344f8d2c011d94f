"""Clusters of clusters, and resampling (Vo et al. 2024, "Automatic data curation for self-supervised learning")."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ssltransfer.data.rng import seed_of
from ssltransfer.kmeans.assignment import assign
from ssltransfer.kmeans.lloyd import Clustering, kmeans
from ssltransfer.kmeans.points import ArraySource, PointLoader, PointSource, SubsetSource
from ssltransfer.kmeans.sampling import rank_in_cluster
from ssltransfer.training.checkpoint import Checkpoint

CheckpointOf = Callable[[int, int], Checkpoint | None]


def hierarchical_kmeans(
    source: PointSource,
    ks: Sequence[int],
    *,
    resample: int = 0,
    resample_points: int | None = None,
    checkpoint_of: CheckpointOf = lambda level, step: None,
    **options: Any,
) -> list[Clustering]:
    """k-means of the points, then of its centroids, and so on (Vo et al. 2024).

    Clustering 0 is of the points in ks[0] clusters, clustering t of the centroids of clustering t - 1 in ks[t]. So
    `labels` of clustering t contain the parent of each cluster of clustering t - 1. A level needs memory for the
    centroids of the level below it, besides that of `kmeans`.

    Resampling evens out the density of the points. k-means with new initial centroids clusters the points nearest to
    each centroid instead of all points, then all points are assigned to the new centroids. The number of points per
    cluster is chosen: all points of the dense clusters would leave their density as it is, and very few would lie so
    close together that the centroids hardly move.

    Args:
        source: of the points.
        ks: clusters of each level, descending.
        resample: number of resampling steps of each level.
        resample_points: nearest points of each cluster in a resampling step; default: a tenth of the mean size, at
            least 10.
        checkpoint_of: level and step (0: the first k-means of the level) -> its checkpoint. Finished steps are not
            computed again, except for the assignment of the points.
        options: of `kmeans`. Centroids are not divided by their length for the next level.

    Raises:
        ArtifactError, Interrupted: see `kmeans`.
    """
    found: list[Clustering] = []
    for level, k in enumerate(ks):
        if level:
            source = ArraySource(found[-1].centroids, options.get("world", 1))
            options |= {
                "l2_normalize": False,
                "where": f"the centroids of level {level}",
                "save_curve": lambda rows: None,
            }
        clustering = _run(source, k, checkpoint_of(level, 0), options)
        most = resample_points or max(10, source.shape[0] // (10 * k))
        for step in range(1, resample + 1):
            again = options | {
                "seed": seed_of(options.get("seed", 0), "resample", step),
                "save_curve": lambda rows: None,
            }
            nearest = rank_in_cluster(clustering.labels, clustering.distances, k) < most
            sample = SubsetSource(source, np.flatnonzero(nearest))
            centroids = _run(sample, k, checkpoint_of(level, step), again).centroids
            clustering = _assigned(source, centroids, clustering, options)
        found.append(clustering)
    return found


def _run(source: PointSource, k: int, checkpoint: Checkpoint | None, options: dict[str, Any]) -> Clustering:
    with checkpoint or nullcontext():
        return kmeans(source, k, checkpoint=checkpoint, **options)


def _assigned(source: PointSource, centroids: np.ndarray, before: Clustering, options: dict[str, Any]) -> Clustering:
    """A clustering of all points with other centroids; the curve stays that of the first k-means."""
    device = options.get("device") or torch.device("cpu")
    points = PointLoader(
        source,
        len(centroids),
        normalize=options.get("l2_normalize", False) or options.get("spherical", False),
        device=device,
        where=options.get("where", "the points"),
        budget=options.get("budget"),
        keep=False,
        rank=options.get("rank", 0),
        world=options.get("world", 1),
    )
    labels, distances = assign(points, torch.from_numpy(centroids).to(device))
    return replace(
        before,
        centroids=centroids,
        labels=labels.numpy(),
        distances=distances.numpy(),
        sizes=np.bincount(labels.numpy(), minlength=len(centroids)),
        objective=float(distances.sum(dtype=torch.float64)),
    )
