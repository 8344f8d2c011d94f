"""What all student methods are given, and what they give: a backbone that learns on views of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ssltransfer.artifacts.index import Index
from ssltransfer.config.entities import Student
from ssltransfer.data.device_ops import center_crop, random_crop, random_hflip
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import RandomResizedCrop, ResizeCenterCrop, Transform, Warp
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone
from ssltransfer.models.normalize import Normalize
from ssltransfer.registry import Registry
from ssltransfer.training.task import BackboneTask


@dataclass(frozen=True)
class StudentInputs:
    """What the stage was called with.

    Attributes:
        spec: what is trained.
        index: training images.
        val: images on which the loss is also measured.
        teacher: manifest of the model that is asked about each view.
        features, val_features: manifests of what it said of the whole images, where that is read instead.
    """

    spec: Student
    index: Index
    val: Index | None = None
    teacher: Path | None = None
    features: Path | None = None
    val_features: Path | None = None


class StudentTask(BackboneTask):
    """A fresh backbone, and the views of images that it learns on.

    Args:
        spec: what is trained.
        backbone: default: that of `spec`, with its fully-connected layers.

    Attributes:
        backbone: what is written in the end; heads, queues and slow copies stay behind.
        normalization: normalization of its images.
    """

    normalization: Normalize = "imagenet"

    def __init__(self, spec: Student, backbone: Backbone | None = None):
        super().__init__()
        self.spec = spec
        if backbone is None:
            backbone = build_backbone(spec.backbone, include_top=True, seed=spec.seed, dropout=spec.method.dropout)
        self.backbone = backbone

    def written(self) -> Backbone:
        """The backbone as other stages read it."""
        return self.backbone

    @property
    def transform(self) -> Transform:
        """CPU part: a warp or square from which the device crops, the random box itself, or the central square."""
        backbone = self.spec.backbone
        if self.spec.method.augment == "random-resized-crop":
            return RandomResizedCrop(backbone.img_size)
        if self.spec.method.augment == "warp-crop":
            return Warp(backbone.short_side)
        if self.spec.method.augment == "none":
            return ResizeCenterCrop(backbone.short_side, backbone.img_size)
        return ResizeCenterCrop(backbone.short_side, backbone.short_side)

    @property
    def val_transform(self) -> Transform:
        """The whole view, cropped at its center on the device."""
        backbone = self.spec.backbone
        if self.spec.method.augment == "warp-crop":
            return Warp(backbone.short_side)
        return ResizeCenterCrop(backbone.short_side, backbone.img_size)

    def views(self, batch: Batch, rng: SampleRNG) -> Tensor:
        """uint8 (B, 3, S, S) -> uint8 (B, 3, size, size): cropped and mirrored at random while it trains."""
        size = self.spec.backbone.img_size
        if self.training and self.spec.method.augment != "none":
            return random_hflip(random_crop(batch.images, rng, size), rng)
        return center_crop(batch.images, size)


STUDENT_METHODS: Registry[Callable[[StudentInputs], StudentTask]] = Registry(
    "ssltransfer.tasks.distillation", "ssltransfer.tasks"
)
