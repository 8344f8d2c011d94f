"""Cluster alignment (Abbasi Koohpayegani et al. 2020; protocols 4.6): do clusters of features match the classes?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ssltransfer.config.protocols import ClusterAlignment
from ssltransfer.data.rng import seed_of
from ssltransfer.kmeans import PointLoader, assign, kmeans
from ssltransfer.protocols.base import PROTOCOLS, EvalContext, EvalResult
from ssltransfer.protocols.classification_scores import accuracy_of, per_class_metrics
from ssltransfer.protocols.harness import SeedResult, run_seeds
from ssltransfer.training.checkpoint import Checkpoint

CLUSTERS, IMAGES = 12, 12  # in the report


@PROTOCOLS.register(ClusterAlignment)
def evaluate(context: EvalContext) -> EvalResult:
    """Accuracy of the class that is matched to the nearest centroid of each test image, for each seed of k-means.

    k-means runs on l2-normalized training features for a fixed number of iterations. Test features are normalized
    too. A cluster without a class (k above the number of classes) counts as wrong.

    Raises:
        ArtifactError: fewer different training images than clusters.
    """
    options, classes = context.options(ClusterAlignment), context.classes()
    device = context.devices.device
    k = options.k or len(classes.names)

    def run(seed: int, folder: Path) -> SeedResult:
        clustering = kmeans(
            context.features[0],
            k,
            max_iter=options.max_iter,
            tolerance=0,
            l2_normalize=True,
            seed=seed,
            device=device,
            checkpoint=Checkpoint(folder / "checkpoint.pt"),
            where=context.spec.train,
        )
        test = PointLoader(context.features[1], k, normalize=True, device=device, where=context.spec.test, keep=False)
        nearest, _ = assign(test, torch.from_numpy(clustering.centroids).to(device))
        similarity = similarities(clustering.labels, classes.train, k, len(classes.names))
        matched = match(similarity)
        predicted = matched[nearest.numpy()]
        shown = samples(nearest.numpy(), np.flatnonzero(matched >= 0), context.test.paths, seed)
        clusters = [
            {
                "cluster": c,
                "class": classes.names[label],
                "purity": round(float(similarity[c, label]), 4),
                **({"test": shown[c]} if c in shown else {}),
            }
            for c, label in enumerate(matched.tolist())
            if label >= 0
        ]
        details = {"k": k, "curve": clustering.curve, "sizes": clustering.sizes.tolist(), "clusters": clusters}
        details |= per_class_metrics(classes, predicted)
        return SeedResult({"accuracy": accuracy_of(classes, predicted)}, classes.chance(), details)

    return run_seeds(context, run)


def samples(clusters: np.ndarray, aligned: np.ndarray, paths: Sequence[str], seed: int) -> dict[int, list[str]]:
    """Random images of random aligned clusters that have some, for the report: cluster -> paths.

    `clusters` (N,) are those of the images at `paths`.
    """
    filled = [c for c in aligned.tolist() if (clusters == c).any()]
    chosen = sorted(filled, key=lambda c: seed_of(seed, "shown cluster", c))[:CLUSTERS]

    def order(path: str) -> int:
        return seed_of(seed, "shown image", path)

    return {c: sorted((paths[i] for i in np.flatnonzero(clusters == c).tolist()), key=order)[:IMAGES] for c in chosen}


def similarities(clusters: np.ndarray, labels: np.ndarray, k: int, classes: int) -> np.ndarray:
    """Fraction of each class in each cluster, float64 (k, C), from clusters and classes (N,) of training images.

    Zeros for an empty cluster.
    """
    counts = np.zeros((k, classes))
    np.add.at(counts, (clusters, labels), 1)
    shares: np.ndarray = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares


def match(similarity: np.ndarray) -> np.ndarray:
    """The one-to-one mapping of clusters to classes with the largest sum of similarities (k, C) (Hungarian method).

    Returns the class of each cluster, int64 (k,), -1 for unmatched clusters.
    """
    mapping = np.full(len(similarity), -1, np.int64)
    clusters, classes = linear_sum_assignment(similarity, maximize=True)
    mapping[clusters] = classes
    return mapping
