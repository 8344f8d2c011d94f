"""Fine-tuning on PASCAL VOC."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.protocols.base import FineTuning
from ssltransfer.config.schedule import Schedule


class VocClassification(FineTuning):
    """VOC07 classification by fine-tuning: mean average precision over 20 classes."""

    name: Literal["voc-classification"] = "voc-classification"
    reference = "Krähenbühl et al. 2016, voc-classification; protocols 4.1"
    label_type = "multi"
    primary_metric = "map"
    trainable: Literal["all", "fc6-8", "fc8"] = Field(
        "all", description="Trained layers. all, fc6-8: fc6, fc7 and fc8 are reinitialized; fc8: only fc8 is trained."
    )
    scale: tuple[float, float] = Field(
        (0.5, 2.0), description="Side of the random crop relative to the network's input."
    )
    crops: int = Field(10, ge=1, description="Random test crops whose scores are summed.")
    dropout: float = Field(0.5, ge=0, lt=1)
    loss_weight: float = Field(
        20.0, gt=0, description="Factor of the mean over classes; 20 gives the sum over VOC's 20 classes."
    )
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
    def _ordered(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} must be two positive numbers, the smaller first")
        return self
