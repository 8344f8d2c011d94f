"""The supervised control: the same recipe on the true labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssltransfer.artefacts.files import ArtefactError
from ssltransfer.artefacts.index import Index
from ssltransfer.config.entities import Student
from ssltransfer.stages.student.classifier import Classifier


def build(
    spec: Student, index: Index, labels: Path | None, heldout: Index | None, heldout_labels: Path | None
) -> Classifier:
    """The classifier of true labels.

    Raises:
        ArtefactError: there are fewer than two classes.
    """
    if len(np.unique(index.labels)) < 2:
        raise ArtefactError(
            f"{spec.data}: all pictures have one class, there is nothing to learn; name another dataset."
        )
    return Classifier(spec, index.labels, None if heldout is None else heldout.labels, len(index.classes))
