"""Exemplar on patches."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import Normalize
from ssltransfer.config.tasks.base import ForwardPasses, TaskOptions
from ssltransfer.config.tasks.relative_position_residual import ResidualHead


class ExemplarPatches(TaskOptions):
    """Exemplar on patches: two views of one location closer to each other than to a view of another image."""

    name: Literal["exemplar-patches"] = "exemplar-patches"
    reference = "Doersch & Zisserman 2017, Dosovitskiy et al. 2014; protocols 1.6b"
    supports_multi_task = True
    needs_map = True
    images_per_group = 2
    gpu_hours_per_epoch = 60.0
    resize: int = Field(256, ge=16, description="Side in pixels of the square that the whole image is resized to.")
    patch: int = Field(96, ge=8, description="Side of a patch in pixels.")
    translation: float = Field(0.2, ge=0, le=1, description="Largest shift in x and in y, in sides of a patch.")
    scale: tuple[float, float] = Field((0.7, 1.4), description="Range of the side of the view, in sides of a patch.")
    rotation: float = Field(20.0, ge=0, le=180, description="Largest rotation in either direction, in degrees.")
    hue: float = Field(0.1, ge=0, le=0.5, description="Largest hue shift in either direction, in turns of the circle.")
    saturation: tuple[float, float] = (0.7, 1.4)
    brightness: tuple[float, float] = (0.7, 1.4)
    contrast: tuple[float, float] = (0.5, 2.0)
    margin: float = Field(0.5, gt=0)
    head: ResidualHead = ResidualHead()

    @property
    def normalization(self) -> Normalize:
        """Normalization of the inputs of this task."""
        return "imagenet"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.patch > self.resize:
            raise ValueError(f"a patch of {self.patch} is larger than the image of {self.resize}")
        for name in ("scale", "saturation", "brightness", "contrast"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two positive numbers in ascending order, not {[low, high]}")
        return self

    def forward_passes(self, backbone: BackboneOptions) -> ForwardPasses:
        """Two patches."""
        return ForwardPasses(2, backbone, self.patch)
