"""What all evaluation protocols share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssltransfer.config.base import NameFile, Options, Spec
from ssltransfer.config.formats import TargetKind


class Pool(Spec):
    """Pooling of a convolutional map: adaptive, to a square of a side, or by a stride; one of the three."""

    max: int | None = Field(None, ge=1, description="Adaptive max-pooling to this side.")
    avg: int | None = Field(None, ge=1, description="Adaptive average pooling to this side.")
    dims: int | None = Field(
        None, ge=1, description="Max-pooling by the least whole stride that leaves at most so many dimensions."
    )

    @model_validator(mode="after")
    def _one(self) -> Pool:
        if [self.max, self.avg, self.dims].count(None) != 2:
            raise ValueError("give one of max, avg and dims")
        return self

    @property
    def slug(self) -> str:
        """max4, avg1 or dims9000."""
        return next(f"{how}{size}" for how, size in self if size)


class ProtocolOptions(Options):
    """What all protocols share. `module` in stages/evaluate/ holds the protocol.

    `reads` says what a protocol works on: a model and images, or features that the features stage made; `trains`
    whether it looks at a training set at all, `tunes` whether the network itself learns of it; `labels` and `targets`
    what a image must come with; `falling` which values are better the lower they are, and in which unit, for they are
    not in `unit`.
    """

    module: ClassVar[str] = ""
    reads: ClassVar[Literal["model", "features"]] = "model"
    trains: ClassVar[bool] = True
    labels: ClassVar[Literal["single", "multi"] | None] = "single"
    targets: ClassVar[TargetKind | None] = None
    tunes: ClassVar[bool] = False
    headline: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "%"
    falling: ClassVar[Mapping[str, str]] = {}


class FineTuning(ProtocolOptions):
    """What protocols share that train the model itself further; what is done to it before."""

    tunes: ClassVar[bool] = True
    fuse_bn: bool = Field(
        False, description="Fold each batch norm into the convolution before it; nothing where there are none."
    )
    data_dependent_init: bool = Field(
        False,
        description="Unit variance of every channel, then equal relative gradients of all layers "
        "(Krähenbühl et al. 2016); not for residual networks.",
    )


class Labelled(Spec):
    """Which training images keep their labels: drawn for each seed, or listed; one of the three."""

    share: float | None = Field(None, gt=0, lt=1, description="Of each class, rounded, one image at least.")
    each: int | None = Field(None, ge=1, description="Images of each class; 1: one-shot.")
    list: NameFile | None = Field(None, description="A file with a image a line: its path in the set, or its name.")

    @model_validator(mode="after")
    def _one(self) -> Labelled:
        if [self.share, self.each, self.list].count(None) != 2:
            raise ValueError("give one of share, each and list")
        return self


LAYER = "Default: the last layer that the model has."
POOL = "Default: the whole map; for convolutional layers give avg: 1, say."
PATCHES = "The mean over the 3 x 3 patches of a central square, each of the backbone's size: for models that learned of patches."
LASSO = "The head reads its own mix of the units of block3, at this L1 penalty; of resnet101-v2 alone."
LABELLED = "Few labels: which training images have one. Default: all."


class FeatureProtocol(ProtocolOptions):
    """What protocols on cached features share: which layer, pooled how."""

    reads: ClassVar[Literal["model", "features"]] = "features"
    layer: str | None = Field(None, description=LAYER)
    pool: Pool | None = Field(None, description=POOL)
    patches: bool = Field(False, description=PATCHES)
    labelled: Labelled | None = Field(None, description=LABELLED)
