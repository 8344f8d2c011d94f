"""Transforms of detectors: whole images at a short side, with their boxes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.artifacts.index import Index
from ssltransfer.data.targets import Boxes, read_target
from ssltransfer.data.transforms import Transform, resize
from ssltransfer.models.normalize import Normalize, normalize
from ssltransfer.protocols.detection.boxes import RoiSampler

NO_OBJECT = -1  # class or label of a row that pads a batch


def fitted(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Height and width with this short side, or less if the long side would exceed `max_size`; the aspect is kept."""
    factor = min(min_size / min(height, width), max_size / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def objects_of(index: Index, sample: int) -> Boxes:
    """The objects of an image that are not difficult; py-faster-rcnn trains on these only.

    Raises:
        ArtifactError: they cannot be read.
    """
    boxes = read_target(index, sample)
    assert isinstance(boxes, Boxes)
    return boxes.subset(~boxes.difficult)


@dataclass(frozen=True)
class DetectionTransform(Transform):
    """An image at a random scale, flipped half the time, with `boxes` (N, 4) and `classes` (N,) of its objects.

    fast-rcnn and py-faster-rcnn show each image in both orientations in every epoch instead.
    """

    padding: ClassVar[Mapping[str, float]] = {"boxes": 0.0, "classes": NO_OBJECT}
    min_size: Sequence[int]
    max_size: int

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """See the class."""
        return self.resized(index, sample, image, rng)[0]

    def resized(
        self, index: Index, sample: int, image: Tensor, rng: Random
    ) -> tuple[dict[str, Tensor], Callable[[Tensor], Tensor]]:
        """The result, and the mapping of boxes of the image."""
        objects = objects_of(index, sample)
        height, width = fitted(image.shape[-2], image.shape[-1], rng.choice(self.min_size), self.max_size)
        scale, flip = (width / image.shape[-1], height / image.shape[-2]), rng.random() < 0.5
        move = partial(moved, scale=scale, flip_width=width if flip else None)
        view = resize(image, height, width)
        return {
            "image": view.flip(-1) if flip else view,
            "boxes": move(torch.from_numpy(objects.corners)),
            "classes": torch.from_numpy(objects.classes),
        }, move


def moved(boxes: Tensor, scale: tuple[float, float], flip_width: int | None = None) -> Tensor:
    """Boxes, float (N, 4), in an image scaled by (x, y), which is then flipped if its width is given."""
    boxes = boxes * boxes.new_tensor(scale * 2)
    if flip_width is None:
        return boxes
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack([flip_width - right, top, flip_width - left, bottom], dim=-1)


@dataclass(frozen=True)
class RoiTransform(DetectionTransform):
    """Like `DetectionTransform`, with RoIs sampled from proposals instead of the objects.

    `rois` (R, 4), `labels` (R,) and `matched_boxes` (R, 4) as `RoiSampler` returns them.
    """

    padding: ClassVar[Mapping[str, float]] = {"rois": 0.0, "labels": NO_OBJECT, "matched_boxes": 0.0}
    proposals: Sequence[np.ndarray]
    roi_sampler: RoiSampler

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """See the class."""
        view, move = self.resized(index, sample, image, rng)
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        proposals = move(torch.from_numpy(self.proposals[sample]))
        rois, labels, matched = self.roi_sampler(proposals, view["boxes"], view["classes"], generator)
        return {"image": view["image"], "rois": rois, "labels": labels, "matched_boxes": matched}


@dataclass(frozen=True)
class MultiScaleTransform(Transform):
    """An image at one or several sizes: `image` is the first, `scale-1`, ... are the others."""

    padding: ClassVar[Mapping[str, float]] = {}
    sizes: Sequence[tuple[int, int]]  # min_size and max_size of each

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """See the class."""
        views = [resize(image, *fitted(image.shape[-2], image.shape[-1], *size)) for size in self.sizes]
        return {"image": views[0], **{f"scale-{number}": view for number, view in enumerate(views[1:], 1)}}


def preprocess_image(image: Tensor, normalization: Normalize, multiple: int = 1) -> Tensor:
    """Normalize an image and pad it with zeros at its ends: uint8 (1, 3, h, w) -> float32 (1, 3, H, W).

    H and W are multiples of `multiple`. Padding after the normalization is what Caffe does.
    """
    height, width = image.shape[-2:]
    return F.pad(normalize(image, normalization), (0, -width % multiple, 0, -height % multiple))
