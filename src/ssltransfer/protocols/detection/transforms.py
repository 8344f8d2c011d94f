"""Images as detectors see them: whole, at a short side, with boxes that follow; and how a batch of them is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from ssltransfer.protocols.detection.boxes import Sampling

NOTHING = -1
"""Class, or label, of a row that fills up a batch."""


def fitted(height: int, width: int, short: int, longest: int) -> tuple[int, int]:
    """Height and width with this short side, or less where the long one would pass `longest`; aspect kept."""
    factor = min(short / min(height, width), longest / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def objects_of(index: Index, sample: int) -> Boxes:
    """The objects of a image that are not difficult: those that are learnt (py-faster-rcnn leaves difficult ones).

    Raises:
        ArtifactError: they cannot be read.
    """
    boxes = read_target(index, sample)
    assert isinstance(boxes, Boxes)
    plain = ~boxes.difficult
    return Boxes(boxes.corners[plain], boxes.classes[plain], boxes.difficult[plain])


@dataclass(frozen=True)
class TrainingView(Transform):
    """A image at a random scale, mirrored half the time, with `boxes` (N, 4) and `classes` (N,) of its objects.

    fast-rcnn and py-faster-rcnn show each image both ways round in every pass instead.
    """

    padding: ClassVar[Mapping[str, float]] = {"boxes": 0.0, "classes": NOTHING}
    scales: Sequence[int]
    max_size: int

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """See the class."""
        view, _ = self.placed(index, sample, image, rng)
        return view

    def placed(self, index: Index, sample: int, image: Tensor, rng: Random) -> tuple[dict[str, Tensor], Placement]:
        """The view, and where objects of the image are in it."""
        objects = objects_of(index, sample)
        height, width = fitted(image.shape[-2], image.shape[-1], rng.choice(self.scales), self.max_size)
        where = Placement(width / image.shape[-1], height / image.shape[-2], width, rng.random() < 0.5)
        view = resize(image, height, width)
        return {
            "image": view.flip(-1) if where.mirrored else view,
            "boxes": where(torch.from_numpy(objects.corners)),
            "classes": torch.from_numpy(objects.classes),
        }, where


@dataclass(frozen=True)
class Placement:
    """From pixels of a image to those of its view."""

    across: float
    down: float
    width: int
    mirrored: bool

    def __call__(self, boxes: Tensor) -> Tensor:
        """float (N, 4) -> float (N, 4)."""
        boxes = boxes * boxes.new_tensor([self.across, self.down, self.across, self.down])
        if self.mirrored:
            left, top, right, bottom = boxes.unbind(-1)
            boxes = torch.stack([self.width - right, top, self.width - left, bottom], dim=-1)
        return boxes


@dataclass(frozen=True)
class RegionView(TrainingView):
    """The same, with regions drawn from proposals instead of the objects.

    `regions` (R, 4), `labels` (R,) as `Sampling` draws them, `shown` (R, 4) the object at each. The drawing is seeded
    by the image's own random numbers, as everything that the loader draws.
    """

    padding: ClassVar[Mapping[str, float]] = {"regions": 0.0, "labels": NOTHING, "shown": 0.0}
    proposals: Sequence[np.ndarray]
    sampling: Sampling

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """See the class."""
        view, where = self.placed(index, sample, image, rng)
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        proposals = where(torch.from_numpy(self.proposals[sample]))
        regions, labels, shown = self.sampling(proposals, view["boxes"], view["classes"], generator)
        return {"image": view["image"], "regions": regions, "labels": labels, "shown": shown}


@dataclass(frozen=True)
class TestView(Transform):
    """A image at one or several short sides: `image` the first, `scale-1`, ... the others."""

    __test__: ClassVar[bool] = False  # no class of tests
    padding: ClassVar[Mapping[str, float]] = {}
    scales: Sequence[tuple[int, int]]

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """See the class; `scales` are pairs of short side and longest side."""
        views = [
            resize(image, *fitted(image.shape[-2], image.shape[-1], short, longest)) for short, longest in self.scales
        ]
        return {"image": views[0], **{f"scale-{place}": view for place, view in enumerate(views[1:], 1)}}


def preprocess_image(image: Tensor, rule: Normalize, multiple: int = 1) -> Tensor:
    """float32 (1, 3, H, W), a image normalized by itself, zeros beyond its edges as Caffe's blobs have them.

    Args:
        image: uint8 (1, 3, h, w).
        rule: of the network.
        multiple: H and W are the least multiples that hold the image.
    """
    height, width = image.shape[-2:]
    return F.pad(normalize(image, rule), (0, -width % multiple, 0, -height % multiple))
