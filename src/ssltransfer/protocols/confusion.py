"""Scores of semantic segmentation, from one confusion matrix of all test images (Long et al. 2015; protocols 4.3)."""

from __future__ import annotations

import numpy as np

from ssltransfer.data.targets import VOID


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 (C, C): pixels by true (row) and predicted class (column); void pixels are ignored.

    Args:
        truth: uint8, 0 to C - 1 or 255 for void.
        predicted: 0 to C - 1, of the same shape.
        classes: C, with the background.
    """
    counted = truth != VOID
    pairs = truth[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def intersection_over_union(matrix: np.ndarray) -> np.ndarray:
    """float64 (C,), IoU of each class; NaN for classes in neither truth nor prediction.

    Args:
        matrix: int64 (C, C), of `confusion`.
    """
    right = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - right
    return np.divide(right, union, out=np.full_like(right, np.nan), where=union > 0)


def mean_iou(matrix: np.ndarray) -> float:
    """Mean IoU over the classes that occur in truth or prediction, 0 to 1."""
    return float(np.nanmean(intersection_over_union(matrix)))


def shares(matrix: np.ndarray) -> dict[str, float]:
    """The four scores that FCN's authors report, 0 to 1."""
    right, true = np.diag(matrix).astype(np.float64), matrix.sum(1)
    present = true > 0
    iou = intersection_over_union(matrix)
    return {
        "miou": mean_iou(matrix),
        "pixel_accuracy": float(right.sum() / true.sum()),
        "mean_accuracy": float((right[present] / true[present]).mean()),
        "frequency_weighted_iou": float((true[present] * iou[present]).sum() / true.sum()),
    }


def all_background(matrix: np.ndarray) -> np.ndarray:
    """The confusion matrix of predicting background everywhere, for the same truth."""
    constant = np.zeros_like(matrix)
    constant[:, 0] = matrix.sum(1)
    return constant
