"""The supervised control: the same recipe on the true labels."""

from __future__ import annotations

import numpy as np

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.tasks.distillation.base import StudentInputs
from ssltransfer.tasks.distillation.classifier import Classifier


def build(given: StudentInputs) -> Classifier:
    """The classifier of true labels.

    Raises:
        ArtifactError: there are fewer than two classes.
    """
    index, val = given.index, given.val
    if len(np.unique(index.labels)) < 2:
        raise ArtifactError(
            f"{given.spec.data}: all images have one class, there is nothing to learn; name another dataset."
        )
    return Classifier(given.spec, index.labels, None if val is None else val.labels, len(index.classes))
