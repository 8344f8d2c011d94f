"""Semantic segmentation."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.protocols.base import FineTuning
from ssltransfer.config.schedule import Schedule


class Segmentation(FineTuning):
    """FCN-32s on any backbone, fine-tuned: mean intersection over union of the classes and the background."""

    name: Literal["segmentation"] = "segmentation"
    reference = "Long, Shelhamer & Darrell 2015, voc-fcn-alexnet; protocols 4.3"
    label_type = None
    targets = "masks"
    primary_metric = "miou"
    trainable: Literal["all", "fc6-8", "score"] = Field(
        "all", description="Trained layers. fc6-8: fc6, fc7 and the score layer; score: the score layer only."
    )
    padding: int = Field(100, ge=0, description="Zero padding around the image, for backbones with fc6.")
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
