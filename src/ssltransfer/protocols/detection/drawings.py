"""Drawings of detections and true boxes, and precision-recall curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssltransfer.artifacts.index import Index
from ssltransfer.data.drawing import data_uri, side_by_side, with_boxes
from ssltransfer.data.image_cache import read_sample
from ssltransfer.data.targets import Boxes
from ssltransfer.data.transforms import resize
from ssltransfer.protocols.average_precision import best_precisions
from ssltransfer.protocols.base import evenly_spaced
from ssltransfer.protocols.detection.ap import Curve
from ssltransfer.protocols.detection.boxes import Detections

IMAGES = 6
HEIGHT = 180  # pixels; two images side by side stay below 40 kB
CERTAIN = 0.5  # score from which a detection is drawn
FEW = 3  # detections drawn if none has that score
CLASSES = 6  # number of curves: of the most frequent classes
LEVELS = np.arange(41) / 40  # of recall
# Okabe & Ito 2008, cyclic.
COLORS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))


def draw(test: Index, detections: Sequence[Detections], truth: Sequence[Boxes]) -> list[dict[str, str]]:
    """Drawings of evenly spaced test images with objects, true boxes beside detections: {title, uri of a JPEG} each."""
    with_objects = [sample for sample, boxes in enumerate(truth) if len(boxes.classes)]
    drawings = []
    for position in evenly_spaced(len(with_objects), IMAGES):
        sample = with_objects[position]
        boxes, best = truth[sample], detections[sample]
        certain = int((best.scores >= CERTAIN).sum())
        shown = slice(0, certain or FEW)
        image = read_sample(test, sample)
        factor = HEIGHT / image.shape[-2]
        small = resize(image, HEIGHT, max(1, round(image.shape[-1] * factor))).permute(1, 2, 0).numpy()
        marks = ["difficult" if hard else "" for hard in boxes.difficult]
        left = _marked(small, boxes.corners * factor, boxes.classes, marks, test.classes)
        scores = [f"{score:.2f}" for score in best.scores[shown]]
        right = _marked(small, best.boxes[shown] * factor, best.classes[shown], scores, test.classes)
        note = "" if certain else f", nothing above {CERTAIN:g}: the best {len(scores)}"
        title = f"{test.paths[sample].rsplit('/', 1)[-1]}: truth, found{note}"
        drawings.append({"title": title, "uri": data_uri(side_by_side([left, right], HEIGHT), "JPEG")})
    return drawings


def _marked(
    image: np.ndarray, boxes: np.ndarray, classes: np.ndarray, texts: Sequence[str], names: Sequence[str]
) -> np.ndarray:
    texts = [f"{names[kind]} {text}".strip() for kind, text in zip(classes, texts, strict=True)]
    return with_boxes(image, boxes, texts, [COLORS[kind % len(COLORS)] for kind in classes])


def precision_lines(
    names: Sequence[str], curves: Sequence[Curve | None], truth: Sequence[Boxes]
) -> list[dict[str, Any]]:
    """One figure: largest precision at each recall or more, of the classes with most objects."""
    counts = np.bincount(np.concatenate([boxes.classes for boxes in truth]), minlength=len(names))
    series = {}
    for kind in np.argsort(-counts, kind="stable")[:CLASSES]:
        curve = curves[kind]
        if curve is not None:
            best = best_precisions(curve.recall, curve.precision, LEVELS)
            series[names[kind]] = [LEVELS.tolist(), [round(float(value), 4) for value in best]]
    return [{"title": "precision over recall", "x": "recall", "y": "precision", "series": series}]
