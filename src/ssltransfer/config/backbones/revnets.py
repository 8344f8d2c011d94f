"""Reversible residual networks."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.backbones.base import BatchNormOptions
from ssltransfer.config.backbones.resnets import PATCH_STRIDES
from ssltransfer.config.backbones.resnets_v2 import PreActResNet


class RevNet50(PreActResNet, BatchNormOptions):
    """RevNet-50: a ResNet-50 v2 whose units can be inverted, width k / 4 for Kolesnikov's widening factor k."""

    name: Literal["revnet50"] = "revnet50"
    reference = "Gomez et al. 2017; Kolesnikov et al. 2019; protocols 2.4"
    depths = (3, 4, 6, 3)
    patch_overrides = PATCH_STRIDES
    grad_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, a third more time."
    )
