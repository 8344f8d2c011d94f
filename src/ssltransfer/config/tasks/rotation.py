"""Rotation."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import Normalize
from ssltransfer.config.tasks.base import ForwardPasses, TaskOptions


class Rotation(TaskOptions):
    """Rotation: by how many quarter turns was the image rotated?"""

    name: Literal["rotation"] = "rotation"
    reference = "Gidaris et al. 2018; protocols 1.5"
    supports_multi_task = True
    augment: Literal["random-resized-crop", "inception", "crop"] = Field(
        "random-resized-crop",
        description="RotNet's random resized crop, Inception's (Kolesnikov 2019), or a random crop.",
    )
    hidden_dim: int = Field(4096, ge=1, description="Width of fc6 and fc7 of backbones that end in a map.")

    @property
    def normalization(self) -> Normalize:
        """Normalization of the inputs of this task."""
        return "half" if self.augment == "inception" else "imagenet"

    def forward_passes(self, backbone: BackboneOptions) -> ForwardPasses:
        """One for each rotation."""
        return ForwardPasses(4, backbone, backbone.img_size)
