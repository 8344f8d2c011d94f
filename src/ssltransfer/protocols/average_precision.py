"""Average precision of one class, by the area under the curve and by VOC2007's eleven points."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve


def area(scores: np.ndarray, presence: np.ndarray) -> float | None:
    """Area under the precision-recall curve as a sum of steps, without interpolation (scikit-learn's), 0 to 1.

    From scores (N,) and presence (N,): 1 present, -1 absent, 0 difficult. Difficult images are ignored. None if the
    class is in no image.
    """
    scores, positive = _counted(scores, presence)
    return float(average_precision_score(positive, scores)) if positive.any() else None


def eleven_points(scores: np.ndarray, presence: np.ndarray) -> float | None:
    """Mean over recalls 0, .1, ..., 1 of the largest precision at that recall or more (VOC2007 devkit's VOCevalcls).

    Arguments and result are those of `area`. Images with equal scores form one step of the curve.
    """
    precision = precisions(scores, presence, 11)
    return None if precision is None else float(precision.mean())


def precisions(scores: np.ndarray, presence: np.ndarray, levels: int) -> np.ndarray | None:
    """Largest precision at or above each of `levels` evenly spaced recalls from 0 to 1, float64; None as in `area`."""
    scores, positive = _counted(scores, presence)
    if not positive.any():
        return None
    precision, recall, _ = precision_recall_curve(positive, scores)
    # The last point (precision 1 at recall 0) is scikit-learn's convention, not a measurement.
    return best_precisions(recall[:-1], precision[:-1], np.linspace(0, 1, levels))


def best_precisions(recall: np.ndarray, precision: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Largest precision at or above each of these recalls, float64; 0 beyond the largest recall."""
    # The tolerance lets a recall of 3/10 reach the level 0.3.
    return np.array([precision[recall >= level - 1e-9].max(initial=0.0) for level in levels])


def mean_ap(values: Sequence[float | None]) -> float:
    """Mean over the classes that have a value."""
    return float(np.mean([ap for ap in values if ap is not None]))


def _counted(scores: np.ndarray, presence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counted = presence != 0
    return scores[counted], presence[counted] > 0
