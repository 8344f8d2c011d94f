"""Cluster classification (Noroozi et al. 2018, section 3): learn which cluster each image belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.artifacts.labels import Labels, read_labels
from ssltransfer.tasks.distillation.base import StudentInputs
from ssltransfer.tasks.distillation.classifier import Classifier


def build(given: StudentInputs) -> Classifier:
    """The classifier of pseudo-labels.

    Raises:
        ArtifactError: the labels belong to other images, or all images lie in one cluster.
    """
    assert given.labels is not None
    train = _of(given.labels, given.index)
    held: np.ndarray | None = None
    if given.val is not None:
        assert given.val_labels is not None
        held = _of(given.val_labels, given.val).labels
    used = int((train.sizes > 0).sum())
    if used < 2:
        raise ArtifactError(
            f"{given.labels}: all images lie in one cluster, there is nothing to learn; cluster with another k."
        )
    print(f"{train.k} clusters, {used} with images, {train.sizes.max()} images in the largest", flush=True)
    return Classifier(given.spec, train.labels, held, train.k)


def _of(path: Path, index: Index) -> Labels:
    labels = read_labels(path)
    labels.check(index, path)
    return labels
