"""What is counted of a classifier's answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssltransfer.protocols.base import Classes, percent

MATRIX_CLASSES = 50


def accuracy_of(classes: Classes, predicted: np.ndarray) -> float:
    """Percent of the test images whose class was named."""
    return percent((predicted == classes.test).mean())


def top5_of(classes: Classes, scores: np.ndarray) -> float:
    """Percent of the test images whose class is among the five likeliest, scores (N, C)."""
    five = np.argpartition(-scores, min(5, scores.shape[1]) - 1, axis=1)[:, :5]
    return percent((five == classes.test[:, None]).any(1).mean())


def per_class_metrics(classes: Classes, predicted: np.ndarray) -> dict[str, Any]:
    """Accuracy of each class in percent (None without test images), and who is taken for whom.

    Args:
        classes: the true ones.
        predicted: int (N,), class named for each test image; -1 names none.

    Returns:
        per_class: class name -> percent. confusion, for up to 50 classes: rows are true classes, columns named ones.
    """
    right = np.bincount(classes.test[predicted == classes.test], minlength=len(classes.names))
    there = np.bincount(classes.test, minlength=len(classes.names))
    per_class = {name: percent(r / n) if n else None for name, r, n in zip(classes.names, right, there, strict=True)}
    found: dict[str, Any] = {"classes": classes.names, "per_class": per_class}
    if len(classes.names) <= MATRIX_CLASSES:
        named = predicted >= 0
        matrix = np.zeros((len(classes.names), len(classes.names)), np.int64)
        np.add.at(matrix, (classes.test[named], predicted[named]), 1)
        found["confusion"] = matrix.tolist()
    return found
