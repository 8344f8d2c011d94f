"""Cluster classification (Noroozi et al. 2018, section 3): classify images by their cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.artifacts.labels import Labels, read_labels
from ssltransfer.config.methods import ClusterClassification
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs
from ssltransfer.tasks.supervised import Classifier


@STUDENT_METHODS.register(ClusterClassification)
def cluster_classification(given: StudentInputs) -> Classifier:
    """The classifier of pseudo-labels.

    Raises:
        ArtifactError: the labels belong to other images, or all images are in one cluster.
    """
    assert given.labels is not None
    train = _of(given.labels, given.index)
    held: np.ndarray | None = None
    if given.val is not None:
        assert given.val_labels is not None
        held = _of(given.val_labels, given.val).labels
    used = int((train.sizes > 0).sum())
    if used < 2:
        raise ArtifactError(f"{given.labels}: all images are in one cluster; cluster with another k.")
    print(f"{train.k} clusters, {used} with images, {train.sizes.max()} images in the largest", flush=True)
    return Classifier(given.spec, train.labels, held, train.k)


def _of(path: Path, index: Index) -> Labels:
    labels = read_labels(path)
    labels.check(index, path)
    return labels
