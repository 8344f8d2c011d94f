"""Cluster classification (Noroozi et al. 2018, section 3): learn which cluster each picture belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssltransfer.artefacts.files import ArtefactError
from ssltransfer.artefacts.index import Index
from ssltransfer.artefacts.labels import Labels, read_labels
from ssltransfer.config.entities import Student
from ssltransfer.stages.student.classifier import Classifier


def build(
    spec: Student, index: Index, labels: Path | None, heldout: Index | None, heldout_labels: Path | None
) -> Classifier:
    """The classifier of pseudo-labels.

    Raises:
        ArtefactError: the labels belong to other pictures, or all pictures lie in one cluster.
    """
    assert labels is not None
    train = _of(labels, index)
    held: np.ndarray | None = None
    if heldout is not None:
        assert heldout_labels is not None
        held = _of(heldout_labels, heldout).labels
    used = int((train.sizes > 0).sum())
    if used < 2:
        raise ArtefactError(
            f"{labels}: all pictures lie in one cluster, there is nothing to learn; cluster with another k."
        )
    print(f"{train.k} clusters, {used} with pictures, {train.sizes.max()} pictures in the largest", flush=True)
    return Classifier(spec, train.labels, held, train.k)


def _of(path: Path, index: Index) -> Labels:
    labels = read_labels(path)
    labels.check(index, path)
    return labels
