"""What all evaluation protocols share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssltransfer.config.base import Options, Spec
from ssltransfer.config.formats import TargetKind


class Pool(Spec):
    """Adaptive pooling of a convolutional map to a square of this side; one of both."""

    max: int | None = Field(None, ge=1)
    avg: int | None = Field(None, ge=1)

    @property
    def slug(self) -> str:
        """max4, avg1, or whole."""
        return f"max{self.max}" if self.max else f"avg{self.avg}" if self.avg else "whole"


class ProtocolOptions(Options):
    """What all protocols share. `module` in stages/evaluate/ holds the protocol.

    `reads` says what a protocol works on: a model and pictures, or features that the features stage made; `trains`
    whether it looks at a training set at all; `labels` and `targets` what a picture must come with; `falling` which
    values are better the lower they are, and in which unit, for they are not in `unit`.
    """

    module: ClassVar[str] = ""
    reads: ClassVar[Literal["model", "features"]] = "model"
    trains: ClassVar[bool] = True
    labels: ClassVar[Literal["one", "many"] | None] = "one"
    targets: ClassVar[TargetKind | None] = None
    headline: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "%"
    falling: ClassVar[Mapping[str, str]] = {}


class Labelled(Spec):
    """Which training pictures keep their labels, drawn for each seed; one of both."""

    share: float | None = Field(None, gt=0, lt=1, description="Of each class, rounded, one picture at least.")
    each: int | None = Field(None, ge=1, description="Pictures of each class; 1: one-shot.")

    @model_validator(mode="after")
    def _one(self) -> Labelled:
        if (self.share is None) == (self.each is None):
            raise ValueError("give one of share and each")
        return self


class FeatureProtocol(ProtocolOptions):
    """What protocols on cached features share: which layer, pooled how."""

    reads: ClassVar[Literal["model", "features"]] = "features"
    layer: str | None = Field(None, description="Default: the last layer that the model has.")
    pool: Pool | None = Field(None, description="Default: the whole map; for convolutional layers give avg: 1, say.")
    labelled: Labelled | None = Field(None, description="Few labels: which training pictures have one. Default: all.")
