"""Average precision of detections as the VOC development kit defines it (VOCevaldet.m; Everingham et al. 2010)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssltransfer.data.targets import Boxes
from ssltransfer.protocols.average_precision import best_precisions
from ssltransfer.protocols.detection.boxes import Detections


@dataclass(frozen=True)
class Curve:
    """Recall and precision of a class after each counted detection, by descending score, float64 (N,) each."""

    recall: np.ndarray
    precision: np.ndarray

    def eleven_points(self) -> float:
        """Mean over recalls 0, .1, ..., 1 of the largest precision at that recall or more (VOC2007)."""
        return float(best_precisions(self.recall, self.precision, np.linspace(0, 1, 11)).mean())

    def area(self) -> float:
        """Area under the monotonically decreasing envelope of the curve (VOC2010 and later)."""
        recall = np.concatenate([[0.0], self.recall])
        envelope = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float((np.diff(recall) * envelope).sum())


def curves(
    detections: Sequence[Detections], truth: Sequence[Boxes], classes: int, *, overlap: float = 0.5
) -> list[Curve | None]:
    """The curve of each class over all images, or None if all of its objects are difficult.

    Detections of a class are sorted by descending score; the sort is stable, as in the devkit. Each is matched to the
    object of its class and image with the largest IoU. It is correct if the IoU is at least `overlap` and the object
    was not detected before, ignored if the object is difficult, and wrong otherwise.
    """
    image = np.repeat(np.arange(len(detections)), [len(one.scores) for one in detections])
    # An empty array first, since `concatenate` needs at least one.
    kinds = np.concatenate([np.zeros(0, np.int64), *(one.classes for one in detections)])
    scores = np.concatenate([np.zeros(0, np.float32), *(one.scores for one in detections)])
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in detections)])
    order = np.argsort(-scores, kind="stable")

    def curve(kind: int) -> Curve | None:
        objects = [one.subset(one.classes == kind) for one in truth]
        positives = sum(int((~one.difficult).sum()) for one in objects)
        if not positives:
            return None
        mine = order[kinds[order] == kind]
        right = np.cumsum(_verdicts(boxes[mine], image[mine], objects, overlap), dtype=float)
        return Curve(right / positives, right / np.arange(1, len(right) + 1))

    return [curve(kind) for kind in range(classes)]


def _verdicts(boxes: np.ndarray, images: np.ndarray, objects: Sequence[Boxes], overlap: float) -> list[int]:
    """1 correct, 0 wrong, for each detection; those of difficult objects are dropped."""
    verdicts = []
    taken = [np.zeros(len(one.difficult), bool) for one in objects]
    for box, image in zip(boxes, images, strict=True):
        iou = overlaps(box, objects[image].corners)
        nearest = int(iou.argmax()) if len(iou) else -1
        if nearest < 0 or iou[nearest] < overlap:
            verdicts.append(0)
        elif not objects[image].difficult[nearest]:
            verdicts.append(int(not taken[image][nearest]))
            taken[image][nearest] = True
    return verdicts


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box (4,) with others (N, 4), float64 (N,)."""
    box, others = box.astype(np.float64), others.astype(np.float64)
    inside = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(min=0).prod(1)
    areas = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1)
    return inside / (areas - inside)
