"""Arithmetic of boxes that detectors share: overlaps, regression targets, which regions are learnt from, what is found.

Boxes are x1, y1, x2, y2 with the first pixel from 0 to 1, so that areas are plain products; the devkit's and Caffe's
inclusive corners say the same with + 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, nms

FOREGROUND = 0.5
"""Least overlap with an object of a region that shows it (Girshick 2015, section 2.3)."""

DEVIATIONS = (0.1, 0.1, 0.2, 0.2)
"""Of regression targets, which are divided by them (py-faster-rcnn: BBOX_NORMALIZE_STDS; the means are 0)."""

_LARGEST = math.log(1000 / 16)  # of a growth's logarithm: no exp of an untrained network overflows (torchvision's)


@dataclass(frozen=True)
class Detections:
    """What was found in a image, best first.

    Attributes:
        boxes: float32 (N, 4), in pixels of the original image.
        scores: float32 (N,), probabilities.
        classes: int64 (N,), by the names of the index.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def encode(boxes: Tensor, regions: Tensor) -> Tensor:
    """Regression targets float (N, 4) that lead from regions (N, 4) to boxes (N, 4), over their deviations.

    Shifts of the center in sides of the region, and logarithms of the growth of both sides (Girshick et al. 2014,
    appendix C).
    """
    size, place = _size_and_center(regions)
    wanted, there = _size_and_center(boxes)
    found = torch.cat([(there - place) / size, (wanted / size).log()], dim=-1)
    return found / found.new_tensor(DEVIATIONS)


def decode(deltas: Tensor, regions: Tensor) -> Tensor:
    """The inverse of `encode`: deltas (..., 4) and regions that broadcast against them -> boxes (..., 4)."""
    shift, growth = (deltas * deltas.new_tensor(DEVIATIONS)).split(2, dim=-1)
    size, place = _size_and_center(regions)
    center, half = place + shift * size, size * growth.clamp(max=_LARGEST).exp() / 2
    return torch.cat([center - half, center + half], dim=-1)


def _size_and_center(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return size, boxes[..., :2] + size / 2


@dataclass(frozen=True)
class Sampling:
    """How many regions of a image are learnt from, and which: the options `rois`, `foreground` and `background`."""

    count: int
    foreground: float
    background: tuple[float, float]

    def __call__(
        self, regions: Tensor, boxes: Tensor, classes: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw regions, the objects themselves among them.

        Args:
            regions: float (N, 4), proposals.
            boxes: float (M, 4), the objects, at least one.
            classes: int64 (M,).
            generator: of the drawing; torch's own for a device when left out.

        Returns:
            Regions (K, 4), K at most `count`; their labels int64 (K,), 0 for background and class + 1 else; the object
            that each overlaps most (K, 4). Fewer than `count` where a image has no more that qualify.
        """
        regions = torch.cat([boxes, regions])
        overlap, nearest = box_iou(boxes, regions).max(dim=0)
        low, high = self.background
        objects = subsample_mask(overlap >= FOREGROUND, round(self.count * self.foreground), generator)
        rest = subsample_mask((overlap >= low) & (overlap < high), self.count - len(objects), generator)
        chosen = torch.cat([objects, rest])
        labels = classes[nearest[chosen]] + 1
        labels[len(objects) :] = 0
        return regions[chosen], labels, boxes[nearest[chosen]]


def subsample_mask(mask: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Places of at most `count` of those that are true, drawn without replacement."""
    places = mask.nonzero()[:, 0]
    return places[torch.randperm(len(places), generator=generator, device=places.device)[:count]]


def region_loss(
    logits: Tensor, deltas: Tensor, regions: Tensor, labels: Tensor, boxes: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and smooth L1 of the right class's regression; both means over the regions (Girshick 2015).

    Args:
        logits: (N, C + 1), background first.
        deltas: (N, C, 4).
        regions, boxes: (N, 4), a region and the object that it shows.
        labels: int64 (N,), 0 background.
    """
    shown = labels > 0
    wanted = encode(boxes[shown], regions[shown])
    given = deltas[shown, labels[shown] - 1].float()
    named = F.cross_entropy(logits.float(), labels, reduction="sum")
    count = max(1, len(labels))  # a image may have no region that qualifies
    return named / count, F.smooth_l1_loss(given, wanted, reduction="sum") / count


def detections(
    probabilities: Tensor,
    boxes: Tensor,
    *,
    width: float,
    height: float,
    nms_thresh: float,
    score_thresh: float,
    detections_per_img: int,
) -> Detections:
    """What remains of all regions' boxes: non-maximum suppression in each class, then the best of all.

    Args:
        probabilities: float (N, C + 1), background first.
        boxes: float (N, C, 4), in pixels of the original image.
        width, height: of the image, to which boxes are cut.
        nms_thresh: IoU above which the lesser of two boxes of a class goes.
        score_thresh: score below which a box is dropped.
        detections_per_img: how many are kept.
    """
    limit = boxes.new_tensor([width, height, width, height])
    boxes = boxes.clamp(min=0).minimum(limit)
    extent = (boxes[..., 2:] - boxes[..., :2]).amin(-1) > 0
    kept, scores, classes = [], [], []
    for kind in range(boxes.shape[1]):
        score = probabilities[:, kind + 1]
        likely = ((score >= score_thresh) & extent[:, kind]).nonzero()[:, 0]
        likely = likely[nms(boxes[likely, kind], score[likely], nms_thresh)]
        kept.append(boxes[likely, kind])
        scores.append(score[likely])
        classes.append(torch.full_like(likely, kind))
    score = torch.cat(scores)
    order = score.argsort(descending=True, stable=True)[:detections_per_img]
    return Detections(
        *(torch.cat(parts)[order].cpu().numpy() for parts in (kept, scores, classes)),
    )
