"""Patches behind a head of residual units (Doersch & Zisserman 2017)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssltransfer.config.base import Spec
from ssltransfer.config.tasks.base import TaskOptions
from ssltransfer.config.tasks.positions import PatchGrid


class ResidualHead(Spec):
    """Two residual units of stride 2 on the backbone's last map: 12x12x1024 to 3x3x512 for patches of 96."""

    head_dims: tuple[int, int] = Field((1024, 512), description="Output channels of the two units.")
    bottleneck_dim: int = Field(128, ge=1, description="Channels of their 3x3 convolutions.")

    @model_validator(mode="after")
    def _positive(self) -> ResidualHead:
        if min(self.head_dims) < 1:
            raise ValueError(f"head_dims {list(self.head_dims)} must be positive")
        return self


class RelativePositionResidual(PatchGrid):
    """Relative position with a residual head: where does the second patch lie relative to the first?"""

    name: Literal["relative-position-residual"] = "relative-position-residual"
    module: ClassVar[str] = "relative_position_residual"
    gpu_hours_per_epoch: ClassVar[float | None] = 350.0
    supports_multi_task: ClassVar[bool] = True
    reference: ClassVar[str] = "Doersch & Zisserman 2017; protocols 1.3c"
    lightness_input: bool = Field(
        False, description="Lightness three times, as colorization sees it; else color dropping."
    )
    head: ResidualHead = ResidualHead()
    hidden_dim: int = Field(512, ge=1, description="Width inside the three fully-connected residual units.")
    width: int | None = Field(
        None, ge=1, description="Width between them, after a linear layer; default that of two patches (2 x 4608)."
    )


class ExemplarPatches(TaskOptions):
    """Exemplar, patches: two views of one place are nearer to each other than to another image's."""

    name: Literal["exemplar-patches"] = "exemplar-patches"
    module: ClassVar[str] = "exemplar_patches"
    images_per_group: ClassVar[int] = 2
    gpu_hours_per_epoch: ClassVar[float | None] = 60.0
    supports_multi_task: ClassVar[bool] = True
    reference: ClassVar[str] = "Doersch & Zisserman 2017, Dosovitskiy et al. 2014; protocols 1.6b"
    resize: int = Field(256, ge=16, description="Side of the square that the whole image is squeezed to.")
    patch: int = Field(96, ge=8)
    translation: float = Field(0.2, ge=0, le=1, description="Largest shift in x and in y, in sides of a patch.")
    scale: tuple[float, float] = Field((0.7, 1.4), description="What a patch shows, in sides of a patch.")
    rotation: float = Field(20.0, ge=0, le=180, description="Largest turn either way, in degrees.")
    hue: float = Field(0.1, ge=0, le=0.5, description="Largest shift either way, in turns of the color circle.")
    saturation: tuple[float, float] = (0.7, 1.4)
    brightness: tuple[float, float] = (0.7, 1.4)
    contrast: tuple[float, float] = (0.5, 2.0)
    margin: float = Field(0.5, gt=0)
    head: ResidualHead = ResidualHead()

    @model_validator(mode="after")
    def _fits(self) -> ExemplarPatches:
        if self.patch > self.resize:
            raise ValueError(f"a patch of {self.patch} is larger than the image of {self.resize}")
        for name in ("scale", "saturation", "brightness", "contrast"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two positive numbers that rise, not {[low, high]}")
        return self
