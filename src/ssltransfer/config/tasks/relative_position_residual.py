"""Relative position with a residual head (Doersch & Zisserman 2017)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.base import Normalize, Spec
from ssltransfer.config.tasks.relative_position import PatchGrid


class ResidualHead(Spec):
    """Two residual units of stride 2 on the backbone's last map: 12x12x1024 to 3x3x512 for patches of 96."""

    head_dims: tuple[int, int] = Field((1024, 512), description="Output channels of the two units.")
    bottleneck_dim: int = Field(128, ge=1, description="Channels of their 3x3 convolutions.")

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(self.head_dims) < 1:
            raise ValueError(f"head_dims {list(self.head_dims)} must be positive")
        return self


class RelativePositionResidual(PatchGrid):
    """Relative position with a residual head: which of eight neighbors of the first patch is the second?"""

    name: Literal["relative-position-residual"] = "relative-position-residual"
    reference = "Doersch & Zisserman 2017; protocols 1.3c"
    supports_multi_task = True
    gpu_hours_per_epoch = 350.0
    lightness_input: bool = Field(
        False, description="Lightness in all three channels, as in colorization, instead of color dropping."
    )
    head: ResidualHead = ResidualHead()
    hidden_dim: int = Field(512, ge=1, description="Width inside the three fully-connected residual units.")
    width: int | None = Field(
        None, ge=1, description="Width between them, after a linear layer; default: that of two patches (2 x 4608)."
    )

    @property
    def normalization(self) -> Normalize:
        """Normalization of the inputs of this task."""
        return "lab-lightness" if self.lightness_input else "per-image"
