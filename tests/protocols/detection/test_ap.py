from itertools import pairwise

import numpy as np
import pytest

from ssltransfer.data.targets import Boxes
from ssltransfer.protocols.average_precision import mean_ap
from ssltransfer.protocols.detection.ap import curves, overlaps
from ssltransfer.protocols.detection.boxes import Detections


def found(*rows: tuple[int, float, tuple[float, float, float, float]]) -> Detections:
    """(class, score, box) each."""
    kinds, scores, boxes = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(kinds, np.int64)
    )


def true(*rows: tuple[int, bool, tuple[float, float, float, float]]) -> Boxes:
    """(class, difficult, box) each."""
    kinds, hard, boxes = zip(*rows, strict=True) if rows else ((), (), ())
    return Boxes(np.array(boxes, np.float32).reshape(-1, 4), np.array(kinds, np.int64), np.array(hard, bool))


A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (60, 60, 70, 70)


def test_overlaps_of_inclusive_corners() -> None:
    """VOC's boxes 1..10 and 6..15 share 5 columns of 15: with the kit's + 1, and with ours as plain areas."""
    assert overlaps(np.array([0.0, 0, 10, 10]), np.array([[5.0, 0, 15, 10], [10, 0, 20, 10]])).tolist() == [1 / 3, 0]


def test_curve_worked_example() -> None:
    """Right, wrong, right of four objects: precisions 1, 1/2, 2/3 at recalls 1/4, 1/4, 1/2."""
    truth = [true((0, False, A), (0, False, B)), true((0, False, A), (0, False, B))]
    (curve,) = curves([found((0, 0.9, A), (0, 0.7, B)), found((0, 0.8, FAR))], truth, 1)
    assert curve is not None
    assert curve.recall.tolist() == [0.25, 0.25, 0.5]
    assert curve.precision.tolist() == [1, 1 / 2, 2 / 3]
    # Levels 0, .1, .2 reach 1, levels .3, .4, .5 reach 2/3, and the rest reach 0.
    assert curve.eleven_points() == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)
    assert curve.area() == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)


@pytest.mark.parametrize(
    ("objects", "told", "right"),
    [
        ([(0, False, A)], [(0, 0.9, A), (0, 0.8, A)], [1, 0]),  # a second detection of an object is wrong
        ([(0, True, A), (0, False, B)], [(0, 0.9, A), (0, 0.8, A), (0, 0.7, B)], [1]),  # difficult: nothing
        ([(0, False, A)], [(0, 0.9, (0, 0, 10, 20))], [1]),  # an overlap of exactly .5 is enough
        ([(0, False, A)], [(0, 0.9, (0, 0, 10, 20.1))], [0]),
        ([(0, False, A)], [(0, 0.9, (5, 0, 15, 10))], [0]),
        ([(0, False, A), (1, False, B)], [(0, 0.9, B)], [0]),  # another class's object
        ([(0, False, A), (0, False, (1, 0, 11, 10))], [(0, 0.9, A), (0, 0.8, A)], [1, 0]),  # the nearest alone counts
        ([(0, False, A)], [], []),
    ],
)
def test_curves_mark_correct_detections(objects: list, told: list, right: list[int]) -> None:
    curve = curves([found(*told)], [true(*objects)], 2)[0]
    assert curve is not None
    positives = sum(not hard and kind == 0 for kind, hard, _ in objects)
    hits = [curve.recall[0] * positives if len(right) else 0.0, *(np.diff(curve.recall) * positives)][: len(right)]
    assert [round(hit) for hit in hits] == right
    if not right:
        assert curve.eleven_points() == curve.area() == 0


def test_mean_ap_ignores_absent_classes() -> None:
    truth = [true((0, False, A), (1, True, B))]
    found_curves = curves([found((0, 0.9, A), (1, 0.9, B), (2, 0.9, FAR))], truth, 3)
    assert [curve is None for curve in found_curves] == [False, True, True]
    assert mean_ap([None if curve is None else curve.area() for curve in found_curves]) == 1


def test_curves_keep_order_of_equal_scores() -> None:
    truth = [true((0, False, A)), true((0, False, A))]
    first, second = found((0, 0.5, A)), found((0, 0.5, FAR))
    hit_first, miss_first = (curves(order, truth, 1)[0] for order in ([first, second], [second, first]))
    assert hit_first is not None and miss_first is not None
    assert hit_first.precision.tolist() == [1, 0.5] and miss_first.precision.tolist() == [0, 0.5]


def plain(told: list[Detections], truth: list[Boxes], kind: int, overlap: float) -> tuple[float, float] | None:
    """The development kit's loop, written down once more: 11 points and area."""
    objects = {
        (place, number): (box, hard)
        for place, boxes in enumerate(truth)
        for number, (box, k, hard) in enumerate(zip(boxes.corners, boxes.classes, boxes.difficult, strict=True))
        if k == kind
    }
    total = sum(not hard for _, hard in objects.values())
    if not total:
        return None
    rows = [
        (float(score), place, box)
        for place, one in enumerate(told)
        for box, score, k in zip(one.boxes, one.scores, one.classes, strict=True)
        if k == kind
    ]
    rows.sort(key=lambda row: -row[0])
    used, tp, fp, points = set(), 0, 0, []
    for _, place, box in rows:
        best, which = -1.0, None
        for key, (other, _) in objects.items():
            if key[0] == place:
                w = min(box[2], other[2]) - max(box[0], other[0])
                h = min(box[3], other[3]) - max(box[1], other[1])
                if w > 0 and h > 0:
                    joint = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1])
                    share = float(w * h / (joint - w * h))
                    if share > best:
                        best, which = share, key
        if which is not None and best >= overlap:
            if objects[which][1]:
                continue
            if which in used:
                fp += 1
            else:
                tp += 1
                used.add(which)
        else:
            fp += 1
        points.append((tp / total, tp / (tp + fp)))
    eleven = sum(max((p for r, p in points if r >= t / 10 - 1e-9), default=0) for t in range(11)) / 11
    recalls = [0.0, *(r for r, _ in points), 1.0]
    precisions = [0.0, *(p for _, p in points), 0.0]
    for place in range(len(precisions) - 2, -1, -1):
        precisions[place] = max(precisions[place], precisions[place + 1])
    steps = enumerate(pairwise(recalls), 1)
    return eleven, sum((after - before) * precisions[place] for place, (before, after) in steps)


@pytest.mark.parametrize("overlap", [0.5, 0.75])
def test_curves_equal_devkit_loop(overlap: float) -> None:
    rng = np.random.default_rng(5)
    truth, told = [], []
    for _ in range(30):
        n = int(rng.integers(0, 5))
        corners = rng.uniform(0, 60, (n, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 40, (n, 2))], 1).astype(np.float32)
        kinds = rng.integers(0, 4, n)
        truth.append(Boxes(boxes, kinds, rng.random(n) < 0.2))
        shaken = np.repeat(boxes, 3, 0) + rng.normal(0, 3, (3 * n, 4)).astype(np.float32)
        chance_losses = np.concatenate([shaken, np.array([[5, 5, 25, 25]], np.float32)])
        labels = np.concatenate([np.where(rng.random(3 * n) < 0.8, np.repeat(kinds, 3), 1), [0]])
        told.append(Detections(chance_losses, rng.random(3 * n + 1).astype(np.float32), labels.astype(np.int64)))
    for kind, curve in enumerate(curves(told, truth, 5, overlap=overlap)):
        reference = plain(told, truth, kind, overlap)
        assert (curve is None) == (reference is None)
        if curve is not None and reference is not None:
            assert (curve.eleven_points(), curve.area()) == pytest.approx(reference)
    assert curves(told, truth, 5, overlap=overlap)[4] is None
