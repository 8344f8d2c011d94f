"""Boxes of detectors: regression targets, sampling of RoIs, losses and non-maximum suppression.

Boxes are x1, y1, x2, y2. The first pixel spans 0 to 1, so areas are plain products. The inclusive corners of the VOC
devkit and of Caffe describe the same boxes with + 1.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image, nms

from ssltransfer.config.protocols import Detection

# Smallest IoU of a foreground RoI with an object (Girshick 2015, section 2.3).
FOREGROUND = 0.5
# Regression targets are divided by these (py-faster-rcnn: BBOX_NORMALIZE_STDS; the means are 0).
STDS = (0.1, 0.1, 0.2, 0.2)
MAX_LOG_SCALE = math.log(1000 / 16)  # torchvision's limit, so that exp of an untrained network cannot overflow


@dataclass(frozen=True)
class Detections:
    """Detections in an image, best first."""

    boxes: np.ndarray  # float32 (N, 4), in pixels of the original image
    scores: np.ndarray  # float32 (N,), probabilities
    classes: np.ndarray  # int64 (N,)


def encode(boxes: Tensor, rois: Tensor) -> Tensor:
    """Regression targets float (N, 4) from RoIs (N, 4) to boxes (N, 4), divided by `STDS`.

    Shifts of the center in sides of the RoI, and logarithms of the ratios of the sides (Girshick et al. 2014, appendix
    C).
    """
    (roi_size, roi_center), (size, center) = _size_and_center(rois), _size_and_center(boxes)
    targets = torch.cat([(center - roi_center) / roi_size, (size / roi_size).log()], dim=-1)
    return targets / targets.new_tensor(STDS)


def decode(deltas: Tensor, rois: Tensor) -> Tensor:
    """The inverse of `encode`: deltas (..., 4) and RoIs that broadcast against them -> boxes (..., 4)."""
    shift, log_scale = (deltas * deltas.new_tensor(STDS)).split(2, dim=-1)
    size, center = _size_and_center(rois)
    center, half = center + shift * size, size * log_scale.clamp(max=MAX_LOG_SCALE).exp() / 2
    return torch.cat([center - half, center + half], dim=-1)


def _size_and_center(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return size, boxes[..., :2] + size / 2


@dataclass(frozen=True)
class RoiSampler:
    """Samples the RoIs of an image that the head is trained on."""

    batch_size_per_image: int  # at most
    fg_fraction: float  # at most
    bg_iou_range: tuple[float, float]  # IoU of background RoIs with the nearest object, from and below

    def __call__(
        self, proposals: Tensor, boxes: Tensor, classes: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sample from proposals (N, 4) and objects, boxes (M, 4) and classes int64 (M,), M >= 1.

        Returns:
            RoIs (K, 4) with K at most `batch_size_per_image`, labels int64 (K,) with 0 for background and else
            class + 1, and the object with the largest IoU (K, 4).
        """
        proposals = torch.cat([boxes, proposals])
        iou, nearest = box_iou(boxes, proposals).max(dim=0)
        low, high = self.bg_iou_range
        most = round(self.batch_size_per_image * self.fg_fraction)
        foreground = _subsample(iou >= FOREGROUND, most, generator)
        most = self.batch_size_per_image - len(foreground)
        background = _subsample((iou >= low) & (iou < high), most, generator)
        chosen = torch.cat([foreground, background])
        labels = classes[nearest[chosen]] + 1
        labels[len(foreground) :] = 0
        return proposals[chosen], labels, boxes[nearest[chosen]]


def _subsample(mask: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Positions of at most `count` true values, drawn without replacement."""
    positions = mask.nonzero()[:, 0]
    return positions[torch.randperm(len(positions), generator=generator, device=positions.device)[:count]]


def roi_loss(logits: Tensor, deltas: Tensor, rois: Tensor, labels: Tensor, matched: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and smooth L1 of the true class's box, both means over the RoIs (Girshick 2015).

    Args:
        logits: (N, C + 1), background first.
        deltas: (N, C, 4).
        rois, matched: (N, 4), RoIs and their objects.
        labels: int64 (N,), 0 for background.
    """
    foreground = labels > 0
    targets = encode(matched[foreground], rois[foreground])
    predicted = deltas[foreground, labels[foreground] - 1].float()
    class_loss = F.cross_entropy(logits.float(), labels, reduction="sum")
    count = max(1, len(labels))  # an image may have no RoI
    return class_loss / count, F.smooth_l1_loss(predicted, targets, reduction="sum") / count


def detections(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], options: Detection) -> Detections:
    """Non-maximum suppression in each class, then the best of all classes.

    On the CPU: on a GPU the host would wait twice for each class.

    Args:
        probabilities: float (N, C + 1), background first.
        boxes: float (N, C, 4), in pixels of the original image.
        size: height and width of that image, to which boxes are clipped.
        options: thresholds of the protocol.
    """
    probabilities, boxes = probabilities.cpu(), clip_boxes_to_image(boxes.cpu(), size)
    not_empty = (boxes[..., 2:] - boxes[..., :2]).amin(-1) > 0
    kept, scores, classes = [], [], []
    for label in range(boxes.shape[1]):
        score = probabilities[:, label + 1]
        rows = ((score >= options.score_thresh) & not_empty[:, label]).nonzero()[:, 0]
        rows = rows[nms(boxes[rows, label], score[rows], options.nms_thresh)]
        kept.append(boxes[rows, label])
        scores.append(score[rows])
        classes.append(torch.full_like(rows, label))
    order = torch.cat(scores).argsort(descending=True, stable=True)[: options.detections_per_img]
    return Detections(*(torch.cat(parts)[order].numpy() for parts in (kept, scores, classes)))
