"""Accuracy, top-5 accuracy and the confusion matrix of a classifier."""

from typing import Any

import numpy as np

from ssltransfer.protocols.base import Classes, percent
from ssltransfer.protocols.confusion import confusion

MATRIX_CLASSES = 50  # largest confusion matrix in the report


def accuracy_of(classes: Classes, predicted: np.ndarray) -> float:
    """Percent of the test images whose class was predicted."""
    return percent((predicted == classes.test).mean())


def top5_of(classes: Classes, scores: np.ndarray) -> float:
    """Percent of the test images whose class is among the five highest scores (N, C)."""
    five = np.argpartition(-scores, min(5, scores.shape[1]) - 1, axis=1)[:, :5]
    return percent((five == classes.test[:, None]).any(1).mean())


def per_class_metrics(classes: Classes, predicted: np.ndarray) -> dict[str, Any]:
    """Details of a classification for the report, from the predicted class of each test image, int (N,), -1 for none.

    `classes`; `per_class`: class -> accuracy in percent, None without test images; `confusion`, for up to 50 classes:
    rows are true classes, columns predicted ones.
    """
    names = classes.names
    correct = np.bincount(classes.test[predicted == classes.test], minlength=len(names))
    counts = np.bincount(classes.test, minlength=len(names))
    per_class = {name: percent(r / n) if n else None for name, r, n in zip(names, correct, counts, strict=True)}
    details: dict[str, Any] = {"classes": names, "per_class": per_class}
    if len(names) <= MATRIX_CLASSES:
        valid = predicted >= 0
        details["confusion"] = confusion(classes.test[valid], predicted[valid], len(names)).tolist()
    return details
