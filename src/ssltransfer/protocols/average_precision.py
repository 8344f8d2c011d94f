"""Average precision of one class, by the area under the curve and by VOC2007's eleven points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve


def area(scores: np.ndarray, presence: np.ndarray) -> float | None:
    """Area under the precision-recall curve as a sum of steps, without interpolation (scikit-learn's).

    Args:
        scores: float (N,).
        presence: int (N,): 1 present, -1 absent, 0 difficult; difficult images count for nothing.

    Returns:
        0 to 1, or None where the class is in no image.
    """
    scores, positive = _counted(scores, presence)
    return float(average_precision_score(positive, scores)) if positive.any() else None


def eleven_points(scores: np.ndarray, presence: np.ndarray) -> float | None:
    """Mean over recalls 0, .1, ..., 1 of the largest precision at that recall or more (VOC2007 devkit's VOCevalcls).

    Arguments and result are those of `area`. Equal scores form one step: their order decides nothing.
    """
    found = precisions(scores, presence, 11)
    return None if found is None else float(found.mean())


def precisions(scores: np.ndarray, presence: np.ndarray, levels: int) -> np.ndarray | None:
    """The largest precision at each of `levels` even recalls from 0 to 1 or more, float64; None as in `area`."""
    scores, positive = _counted(scores, presence)
    if not positive.any():
        return None
    precision, recall, _ = precision_recall_curve(positive, scores)
    # The last point (precision 1 at recall 0) is scikit-learn's convention, not a measurement.
    precision, recall = precision[:-1], recall[:-1]
    # A recall of 3/10 reaches the level .3, whatever rounding makes of it.
    return np.array([precision[recall >= level - 1e-9].max() for level in np.linspace(0, 1, levels)])


def mean_ap(values: Sequence[float | None]) -> float:
    """Mean over the classes that have a value."""
    return float(np.mean([ap for ap in values if ap is not None]))


def _counted(scores: np.ndarray, presence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counted = presence != 0
    return scores[counted], presence[counted] > 0
