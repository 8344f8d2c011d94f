"""The supervised control: the same recipe on the true labels."""

from __future__ import annotations

import numpy as np

from ssltransfer.artefacts.files import ArtefactError
from ssltransfer.stages.student.base import Given
from ssltransfer.stages.student.classifier import Classifier


def build(given: Given) -> Classifier:
    """The classifier of true labels.

    Raises:
        ArtefactError: there are fewer than two classes.
    """
    index, heldout = given.index, given.heldout
    if len(np.unique(index.labels)) < 2:
        raise ArtefactError(
            f"{given.spec.data}: all pictures have one class, there is nothing to learn; name another dataset."
        )
    return Classifier(given.spec, index.labels, None if heldout is None else heldout.labels, len(index.classes))
