import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ssltransfer.protocols.average_precision import area, eleven_points


def test_average_precision_worked_example() -> None:
    # Ranked: + - + - - ; recall 1/2 at precision 1, recall 1 at precision 2/3.
    scores, presence = np.array([0.9, 0.8, 0.7, 0.3, 0.1]), np.array([1, -1, 1, -1, -1])
    assert area(scores, presence) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # Recalls 0, .1, ..., .5 see precision 1; .6, ..., 1 see 2/3.
    assert eleven_points(scores, presence) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


def test_eleven_points_reaches_each_recall_level() -> None:
    # Ranked: a positive, then nine times (negative, positive): precision at recall r/10 is r / (2r - 1).
    presence = np.array([1, *([-1, 1] * 9)])
    scores = -np.arange(19.0)
    precision = [r / (2 * r - 1) for r in range(1, 11)]
    assert area(scores, presence) == pytest.approx(np.mean(precision))
    assert eleven_points(scores, presence) == pytest.approx((precision[0] + sum(precision)) / 11)


def test_average_precision_ignores_difficult_images(rng: np.random.Generator) -> None:
    scores, presence = rng.normal(size=80), rng.choice([-1, 0, 1], 80)
    for measure in (area, eleven_points):
        expected = measure(scores[presence != 0], presence[presence != 0])
        assert measure(scores, presence) == expected
        shifted = np.where(presence == 0, scores + 100, scores)
        assert measure(shifted, presence) == expected
    assert area(scores, presence) == pytest.approx(
        average_precision_score(presence[presence != 0] > 0, scores[presence != 0])
    )


def plain_eleven(scores: np.ndarray, presence: np.ndarray) -> float:
    order = np.argsort(-scores)
    hits = np.cumsum(presence[order] > 0)
    precision, recall = hits / np.arange(1, len(order) + 1), hits / hits[-1]
    return sum(max(precision[recall >= np.float64(level) / 10]) for level in range(11)) / 11


def test_eleven_points_equals_devkit(rng: np.random.Generator) -> None:
    for _ in range(20):
        scores, presence = rng.normal(size=50), rng.choice([-1, 1], 50)
        presence[:7] = 1
        if (presence > 0).sum() % 10 == 0:
            continue  # levels reached exactly: rounding decides in the plain version
        assert eleven_points(scores, presence) == pytest.approx(plain_eleven(scores, presence))


def test_average_precision_is_none_without_positives() -> None:
    assert area(np.ones(3), np.array([-1, 0, -1])) is None
    assert eleven_points(np.ones(3), np.array([-1, 0, -1])) is None
