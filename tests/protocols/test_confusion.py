"""Scores of pixels against definitions written out class by class."""

from __future__ import annotations

import numpy as np
import pytest

from ssltransfer.protocols.confusion import all_background, confusion, intersection_over_union, mean_iou, shares


def plainly(truths: list[np.ndarray], answers: list[np.ndarray], classes: int) -> dict[str, float]:
    """FCN's four numbers from sets of pixels."""
    truth = np.concatenate([t.ravel() for t in truths])
    answer = np.concatenate([a.ravel() for a in answers])
    truth, answer = truth[truth != 255], answer[truth != 255]
    ious, recalls, weighted = [], [], 0.0
    for c in range(classes):
        union = ((truth == c) | (answer == c)).sum()
        if union:
            ious.append(((truth == c) & (answer == c)).sum() / union)
            weighted += (truth == c).mean() * ious[-1]
        if (truth == c).any():
            recalls.append((answer[truth == c] == c).mean())
    return {
        "miou": np.mean(ious),
        "pixel_accuracy": (truth == answer).mean(),
        "mean_accuracy": np.mean(recalls),
        "frequency_weighted_iou": weighted,
    }


def images(rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Six images of several sizes: class 3 only answered, 4 only true, 5 in neither; some pixels void."""
    sizes = [(7, 9), (12, 5), (3, 3), (8, 8), (1, 20), (10, 11)]
    truths = [rng.choice([0, 1, 2, 4, 255], size, p=[0.5, 0.2, 0.1, 0.1, 0.1]).astype(np.uint8) for size in sizes]
    answers = [
        np.where((t != 255) & (t != 4) & (rng.random(t.shape) < 0.6), t, rng.choice([0, 1, 2, 3], t.shape))
        for t in truths
    ]
    return truths, [answer.astype(np.uint8) for answer in answers]


def test_confusion_scores_equal_pixel_sets(rng: np.random.Generator) -> None:
    truths, answers = images(rng)
    matrix = sum(confusion(t, a, 6) for t, a in zip(truths, answers, strict=True))
    assert isinstance(matrix, np.ndarray)
    assert matrix.sum() == sum((t != 255).sum() for t in truths)
    assert matrix[1, 2] == sum(((t == 1) & (a == 2)).sum() for t, a in zip(truths, answers, strict=True))
    assert shares(matrix) == pytest.approx(plainly(truths, answers, 6))
    each = intersection_over_union(matrix)
    assert np.isnan(each).tolist() == [False] * 5 + [True], "class 5 is in neither truth nor answer"
    assert each[3] == 0 and each[4] == 0


def test_confusion_of_perfect_prediction_and_any_order(rng: np.random.Generator) -> None:
    truths, answers = images(rng)
    right = sum(confusion(t, np.where(t == 255, 9, t), 10) for t in truths)
    assert isinstance(right, np.ndarray)
    assert shares(right) == dict.fromkeys(shares(right), 1.0)
    forth = sum(confusion(t, a, 6) for t, a in zip(truths, answers, strict=True))
    back = sum(confusion(t, a, 6) for t, a in zip(truths[::-1], answers[::-1], strict=True))
    assert np.array_equal(forth, back)


def test_all_background_is_chance_level(rng: np.random.Generator) -> None:
    truths, answers = images(rng)
    matrix = sum(confusion(t, a, 6) for t, a in zip(truths, answers, strict=True))
    chance_level = sum(confusion(t, np.zeros_like(t), 6) for t in truths)
    assert isinstance(matrix, np.ndarray) and isinstance(chance_level, np.ndarray)
    assert np.array_equal(all_background(matrix), chance_level)
    truth = np.concatenate([t[t != 255] for t in truths])
    assert mean_iou(chance_level) == pytest.approx((truth == 0).mean() / 4)
