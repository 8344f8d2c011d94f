"""Cluster classification (Noroozi et al. 2018, section 3): learn which cluster each picture belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssltransfer.artefacts.files import ArtefactError
from ssltransfer.artefacts.index import Index
from ssltransfer.artefacts.labels import Labels, read_labels
from ssltransfer.stages.student.base import Given
from ssltransfer.stages.student.classifier import Classifier


def build(given: Given) -> Classifier:
    """The classifier of pseudo-labels.

    Raises:
        ArtefactError: the labels belong to other pictures, or all pictures lie in one cluster.
    """
    assert given.labels is not None
    train = _of(given.labels, given.index)
    held: np.ndarray | None = None
    if given.heldout is not None:
        assert given.heldout_labels is not None
        held = _of(given.heldout_labels, given.heldout).labels
    used = int((train.sizes > 0).sum())
    if used < 2:
        raise ArtefactError(
            f"{given.labels}: all pictures lie in one cluster, there is nothing to learn; cluster with another k."
        )
    print(f"{train.k} clusters, {used} with pictures, {train.sizes.max()} pictures in the largest", flush=True)
    return Classifier(given.spec, train.labels, held, train.k)


def _of(path: Path, index: Index) -> Labels:
    labels = read_labels(path)
    labels.check(index, path)
    return labels
