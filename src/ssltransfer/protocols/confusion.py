"""Confusion matrices, and the scores of semantic segmentation from them (Long et al. 2015; protocols 4.3)."""

import numpy as np

from ssltransfer.data.targets import VOID


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts by true class (row) and predicted class (column), int64 (C, C).

    `truth` holds 0 to C - 1, or 255 for void, which is ignored; `predicted` has the same shape and holds 0 to C - 1.
    """
    counted = truth != VOID
    pairs = truth[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def intersection_over_union(matrix: np.ndarray) -> np.ndarray:
    """IoU of each class from `confusion`, float64 (C,); NaN for classes in neither truth nor prediction."""
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
