"""What all student methods are given, and what they give: a trunk that learns on views of pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ssltransfer.artefacts.index import Index
from ssltransfer.config.entities import Student
from ssltransfer.config.tasks.base import TaskOptions
from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.data.batches import Batch
from ssltransfer.data.device_ops import centre_crop, mirror_some, random_crop
from ssltransfer.data.draws import Draws
from ssltransfer.data.transforms import CentreSquare, RandomResizedCrop, Transform, Warp
from ssltransfer.models.build import build_trunk
from ssltransfer.models.normalise import Normalise
from ssltransfer.models.trunk import Trunk
from ssltransfer.training.task import TrunkTask

BuildTask = Callable[[TaskOptions, TrunkOptions, int], TrunkTask]


@dataclass(frozen=True)
class Given:
    """What the stage was called with.

    Attributes:
        spec: what is trained.
        index: training pictures.
        heldout: pictures on which the loss is also measured.
        labels, heldout_labels: pseudo-labels of those, where the method learns from them.
        teacher: manifest of the model that is asked about each view.
        features, heldout_features: manifests of what it said of the whole pictures, where that is read instead.
        build_task: makes the pretext task of these options and this seed on such a trunk, where its loss is learned.
    """

    spec: Student
    index: Index
    heldout: Index | None = None
    labels: Path | None = None
    heldout_labels: Path | None = None
    teacher: Path | None = None
    features: Path | None = None
    heldout_features: Path | None = None
    build_task: BuildTask | None = None


class StudentTask(TrunkTask):
    """A fresh trunk, and the views of pictures that it learns on.

    Args:
        spec: what is trained.
        trunk: default: that of `spec`, with its fully-connected layers.

    Attributes:
        trunk: what is written in the end; heads, queues and slow copies stay behind.
        rule: normalisation of its pictures.
    """

    rule: Normalise = "imagenet"

    def __init__(self, spec: Student, trunk: Trunk | None = None):
        super().__init__()
        self.spec = spec
        if trunk is None:
            trunk = build_trunk(spec.trunk, top=True, seed=spec.seed, dropout=spec.method.dropout)
        self.trunk = trunk

    def written(self) -> Trunk:
        """The trunk as other stages read it."""
        return self.trunk

    @property
    def transform(self) -> Transform:
        """CPU part: a warp or square from which the device crops, the random box itself, or the central square."""
        trunk = self.spec.trunk
        if self.spec.method.augment == "random-resized-crop":
            return RandomResizedCrop(trunk.size)
        if self.spec.method.augment == "warp-crop":
            return Warp(trunk.short_side)
        if self.spec.method.augment == "none":
            return CentreSquare(trunk.short_side, trunk.size)
        return CentreSquare(trunk.short_side, trunk.short_side)

    @property
    def heldout_transform(self) -> Transform:
        """The whole view, cropped at its centre on the device."""
        trunk = self.spec.trunk
        if self.spec.method.augment == "warp-crop":
            return Warp(trunk.short_side)
        return CentreSquare(trunk.short_side, trunk.size)

    def views(self, batch: Batch, draws: Draws) -> Tensor:
        """uint8 (B, 3, S, S) -> uint8 (B, 3, size, size): cropped and mirrored at random while it trains."""
        size = self.spec.trunk.size
        if self.training and self.spec.method.augment != "none":
            return mirror_some(random_crop(batch.pictures, draws, size), draws)
        return centre_crop(batch.pictures, size)
