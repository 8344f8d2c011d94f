"""Cluster alignment (Abbasi Koohpayegani et al. 2020; protocols 4.6): do the clusters of features match the classes?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ssltransfer.config.protocols import ClusterAlignment
from ssltransfer.kmeans import PointLoader, assign, kmeans, memory_budget
from ssltransfer.protocols.base import EvalContext, EvalResult, classes_of
from ssltransfer.protocols.classification_scores import accuracy_of, per_class_metrics
from ssltransfer.training.checkpoint import Checkpoint


def evaluate(context: EvalContext) -> EvalResult:
    """Accuracy of the class that each test image's nearest centroid is matched with, for each seed of k-means.

    k-means runs on l2-normalized training features for a fixed number of iterations; test features are normalized
    alike. A cluster without a class (k above the number of classes) names none.

    Raises:
        ArtifactError: fewer different training images than clusters.
    """
    options = context.spec.protocol
    assert isinstance(options, ClusterAlignment) and context.features is not None
    classes = classes_of(context.train, context.test, (context.spec.train, context.spec.test))
    device, budget = context.devices.device, memory_budget()
    k = options.k or len(classes.names)
    values: list[float] = []
    details: dict[str, Any] = {}
    for seed in context.spec.seeds:
        folder = context.folder / f"seed-{seed}"
        folder.mkdir(exist_ok=True)
        found = kmeans(
            context.features[0],
            k,
            iterations=options.max_iter,
            tolerance=0,
            normalize=True,
            seed=seed,
            device=device,
            budget=budget,
            checkpoint=Checkpoint(folder / "checkpoint.pt"),
            where=context.spec.train,
        )
        test = PointLoader(
            context.features[1], k, normalize=True, device=device, budget=budget, where=context.spec.test, keep=False
        )
        nearest, _ = assign(test, torch.from_numpy(found.centroids).to(device))
        similarity = similarities(found.labels, classes.train, k, len(classes.names))
        matched = match(similarity)
        predicted = matched[nearest.numpy()]
        values.append(accuracy_of(classes, predicted))
        print(f"seed {seed}: {values[-1]:.2f} %, {(found.sizes == 0).sum()} clusters empty", flush=True)
        if not details:
            pairs = [(cluster, name) for cluster, name in enumerate(matched.tolist()) if name >= 0]
            details = {
                "k": k,
                "curve": found.curve,
                "sizes": found.sizes.tolist(),
                "clusters": [
                    {
                        "cluster": cluster,
                        "class": classes.names[name],
                        "purity": round(float(similarity[cluster, name]), 4),
                    }
                    for cluster, name in pairs
                ],
                **per_class_metrics(classes, predicted),
            }
    return EvalResult({"accuracy": values}, classes.chance, details)


def similarities(clusters: np.ndarray, labels: np.ndarray, k: int, classes: int) -> np.ndarray:
    """Share of each cluster's training images that are of each class, float64 (k, C); an empty cluster has zeros.

    Args:
        clusters: int (N,), cluster of each training image.
        labels: int (N,), its class.
        k, classes: numbers of both.
    """
    counts = np.zeros((k, classes))
    np.add.at(counts, (clusters, labels), 1)
    shares: np.ndarray = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares


def match(similarity: np.ndarray) -> np.ndarray:
    """The one-to-one mapping of clusters to classes whose similarities have the largest sum (Hungarian method).

    Args:
        similarity: (k, C).

    Returns:
        int64 (k,), class of each cluster; -1 for clusters that are left over.
    """
    mapping = np.full(len(similarity), -1, np.int64)
    clusters, classes = linear_sum_assignment(similarity, maximize=True)
    mapping[clusters] = classes
    return mapping
