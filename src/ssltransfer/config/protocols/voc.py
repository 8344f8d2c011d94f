"""Fine-tuning on PASCAL VOC."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssltransfer.config.protocols.base import FineTuning
from ssltransfer.config.schedule import Schedule


class VocClassification(FineTuning):
    """VOC07 classification by fine-tuning: mean average precision over 20 classes."""

    name: Literal["voc-classification"] = "voc-classification"
    reference: ClassVar[str] = "Krähenbühl et al. 2016, voc-classification; protocols 4.1"
    label_type: ClassVar[Literal["single", "multi"]] = "multi"
    primary_metric: ClassVar[str] = "map"
    trainable: Literal["all", "fc6-8", "fc8"] = Field(
        "all", description="Which layers learn. all, fc6-8: fc6, fc7 and fc8 start afresh; fc8: it alone does."
    )
    scale: tuple[float, float] = Field(
        (0.5, 2.0), description="Side of the random crop in the original image, in sides of the input."
    )
    crops: int = Field(10, ge=1, description="Random crops whose scores are summed at test time.")
    dropout: float = Field(0.5, ge=0, lt=1)
    loss_weight: float = Field(20.0, gt=0, description="Of the mean over classes: 20 is the sum over VOC's 20.")
    schedule: Schedule = Schedule(
        steps=80_000,
        batch_size=16,
        lr=0.001,
        bias_lr_mult=2.0,
        gamma=0.5,
        step_size=10_000,
        weight_decay=1e-6,
        clip_grad_norm=10.0,
    )

    @model_validator(mode="after")
    def _ordered(self) -> VocClassification:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} must be two positive numbers, the smaller first")
        return self
