"""The base of the student methods: their inputs, and a backbone that is trained on views of images."""

from collections.abc import Callable, Sequence
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
    """Inputs of the student stage.

    Attributes:
        index, val: training and validation images.
        teacher: manifest of an online teacher.
        further_teachers: manifests of more of them.
        features, val_features: manifests of stored features of the teacher, used instead.
    """

    spec: Student
    index: Index
    val: Index | None = None
    teacher: Path | None = None
    features: Path | None = None
    val_features: Path | None = None
    further_teachers: Sequence[Path] = ()


class StudentTask(BackboneTask):
    """A backbone (default: that of `spec` with all its layers), and the views of images that it is trained on.

    The backbone alone is exported, without heads, queues and momentum encoders.
    """

    normalization: Normalize = "imagenet"

    def __init__(self, spec: Student, backbone: Backbone | None = None):
        super().__init__()
        self.spec = spec
        if backbone is None:
            backbone = build_backbone(spec.backbone, include_top=True, seed=spec.seed, dropout=spec.method.dropout)
        self.backbone = backbone

    def written(self) -> Backbone:
        """The backbone that is exported."""
        return self.backbone

    @property
    def transform(self) -> Transform:
        """CPU part: an image that is cropped on the device, or the random or center crop."""
        backbone, augment = self.spec.backbone, self.spec.method.augment
        if augment == "random-resized-crop":
            return RandomResizedCrop(backbone.img_size)
        if augment == "warp-crop":
            return Warp(backbone.short_side)
        return ResizeCenterCrop(backbone.short_side, backbone.img_size if augment == "none" else backbone.short_side)

    @property
    def val_transform(self) -> Transform:
        """Center crop; after a warp, the device crops."""
        backbone = self.spec.backbone
        if self.spec.method.augment == "warp-crop":
            return Warp(backbone.short_side)
        return ResizeCenterCrop(backbone.short_side, backbone.img_size)

    def views(self, batch: Batch, rng: SampleRNG) -> Tensor:
        """uint8 (B, 3, S, S) -> uint8 (B, 3, size, size): randomly cropped and flipped in training."""
        size = self.spec.backbone.img_size
        if self.training and self.spec.method.augment != "none":
            return random_hflip(random_crop(batch.images, rng, size), rng)
        return center_crop(batch.images, size)


STUDENT_METHODS: Registry[Callable[[StudentInputs], StudentTask]] = Registry(
    "ssltransfer.tasks.distillation", "ssltransfer.tasks"
)
