"""Fine-tuning for a class a pixel."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.formats import TargetKind
from ssltransfer.config.protocols.base import FineTuning
from ssltransfer.config.schedule import Schedule


class Segmentation(FineTuning):
    """FCN-32s on any backbone, fine-tuned: mean intersection over union of the classes and the background."""

    name: Literal["segmentation"] = "segmentation"
    reference: ClassVar[str] = "Long, Shelhamer & Darrell 2015, voc-fcn-alexnet; protocols 4.3"
    label_type: ClassVar[Literal["single", "multi"] | None] = None
    targets: ClassVar[TargetKind | None] = "masks"
    primary_metric: ClassVar[str] = "miou"
    trainable: Literal["all", "fc6-8", "score"] = Field(
        "all", description="Which layers learn. fc6-8: fc6, fc7 and the score; score: it alone does."
    )
    padding: int = Field(
        100, ge=0, description="Pixels of zeros around the image, for backbones with fc6 (ResNets keep their own)."
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="After fc6 and after fc7.")
    schedule: Schedule = Schedule(
        steps=150_000,
        batch_size=20,
        micro_batch_size=1,
        lr=1e-4,
        step_size=50_000,
        bias_lr_mult=2.0,
        decay_norm_and_bias=False,
    )
