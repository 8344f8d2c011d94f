"""What all evaluation protocols share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssltransfer.config.base import NameFile, Options, Spec
from ssltransfer.config.formats import TargetKind
from ssltransfer.config.schedule import Schedule


class Pool(Spec):
    """Pooling of a convolutional map: adaptive, to a square of a side, or by a stride; one of the three."""

    max: int | None = Field(None, ge=1, description="Adaptive max-pooling to this side.")
    avg: int | None = Field(None, ge=1, description="Adaptive average pooling to this side.")
    max_dim: int | None = Field(
        None, ge=1, description="Max-pooling by the least whole stride that leaves at most so many dimensions."
    )

    @model_validator(mode="after")
    def _one(self) -> Pool:
        if [self.max, self.avg, self.max_dim].count(None) != 2:
            raise ValueError("give one of max, avg and max_dim")
        return self

    @property
    def slug(self) -> str:
        """max4, avg1 or max_dim9000."""
        return next(f"{how}{size}" for how, size in self if size)


class ProtocolOptions(Options):
    """The base class of protocol options.

    Attributes:
        input_kind: what it reads: a model and images, or features of the features stage.
        needs_train: whether it needs a training set.
        label_type, targets: annotations that every image must have.
        finetunes: whether the backbone itself is trained.
        primary_metric: the metric that tables show.
        unit: of all metrics that `units` does not name.
        lower_is_better: metrics of which smaller values are better.
    """

    input_kind: ClassVar[Literal["model", "features"]] = "model"
    needs_train: ClassVar[bool] = True
    label_type: ClassVar[Literal["single", "multi"] | None] = "single"
    targets: ClassVar[TargetKind | None] = None
    finetunes: ClassVar[bool] = False
    primary_metric: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "%"
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    units: ClassVar[Mapping[str, str]] = {}


class TrainedProtocol(ProtocolOptions):
    """A protocol that trains a task on images."""

    schedule: Schedule


class FineTuning(TrainedProtocol):
    """A protocol that fine-tunes the model, which may be changed before."""

    finetunes: ClassVar[bool] = True
    fuse_bn: bool = Field(
        False, description="Fold each batch norm into the convolution before it; nothing where there are none."
    )
    data_dependent_init: bool = Field(
        False,
        description="Unit variance of every channel, then equal relative gradients of all layers "
        "(Krähenbühl et al. 2016); not for residual networks.",
    )


class LabelSubset(Spec):
    """Which training images keep their labels: drawn for each seed, or listed; one of the three."""

    fraction: float | None = Field(None, gt=0, lt=1, description="Of each class, rounded, one image at least.")
    per_class: int | None = Field(None, ge=1, description="Images of each class; 1: one-shot.")
    file: NameFile | None = Field(None, description="A file with a image a line: its path in the set, or its name.")

    @model_validator(mode="after")
    def _one(self) -> LabelSubset:
        if [self.fraction, self.per_class, self.file].count(None) != 2:
            raise ValueError("give one of fraction, per_class and file")
        return self


LAYER = "Default: the last layer that the model has."
POOL = "Default: the whole map; for convolutional layers give avg: 1, say."
PATCHES = "Mean over the 3 x 3 patches of a central square, each of the backbone's size: for models trained on patches."
LASSO = "The head reads its own mix of the units of block3, at this L1 penalty; of resnet101-v2 alone."
LABEL_SUBSET = "Few labels: which training images have one. Default: all."


class FeatureProtocol(ProtocolOptions):
    """What protocols on cached features share: which layer, pooled how."""

    input_kind: ClassVar[Literal["model", "features"]] = "features"
    layer: str | None = Field(None, description=LAYER)
    pool: Pool | None = Field(None, description=POOL)
    patches: bool = Field(False, description=PATCHES)
    label_subset: LabelSubset | None = Field(None, description=LABEL_SUBSET)
