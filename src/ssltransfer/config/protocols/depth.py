"""Depth prediction."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.protocols.base import LASSO, TrainedProtocol
from ssltransfer.config.schedule import Schedule


class Depth(TrainedProtocol):
    """Depth of indoor scenes by fine-tuning with up-projections: pixels within a factor of 1.25, errors."""

    name: Literal["depth"] = "depth"
    reference = "Doersch & Zisserman 2017 after Laina et al. 2016; protocols 4.7"
    label_type = None
    targets = "depth"
    finetunes = True
    primary_metric = "d1"
    lower_is_better = frozenset({"mae", "rel"})
    units = {"mae": "m", "rel": ""}
    layer: str | None = Field(None, description="Default: block3, or the last map of a backbone that has none.")
    output_stride: Literal[8, 16] | None = Field(16, description="For backbones with this option; null: as trained.")
    resize: tuple[int, int] = Field((240, 320), description="Height and width of resized images.")
    crop: tuple[int, int] = Field((228, 304), description="Height and width of the network's input.")
    l1_layer_mix: float | None = Field(None, ge=0, description=LASSO)
    decoder_dim: int = Field(512, ge=8, description="Channels of the first up-projection, halved in each further one.")
    scale: tuple[float, float] = Field((1.0, 1.5), description="Random scale; depth is divided by it.")
    rotation: float = Field(5.0, ge=0, le=45, description="Random rotation of up to this many degrees.")
    color_jitter: tuple[float, float] = Field((0.8, 1.2), description="Random factor of each color channel.")
    hflip: bool = True
    depth_range: tuple[float, float] = Field(
        (0.1, 10.0), description="Test predictions are clamped to this range, in meters."
    )
    schedule: Schedule = Schedule(epochs=20, batch_size=16, lr=0.01, step_size=7, gamma=0.5)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not (0 < self.crop[0] <= self.resize[0] and 0 < self.crop[1] <= self.resize[1]):
            raise ValueError(f"crop {self.crop} must fit in resize {self.resize}")
        for name, (low, high), least in (("scale", self.scale, 1.0), ("color_jitter", self.color_jitter, 0.0)):
            if not least <= low <= high:
                raise ValueError(f"{name} {(low, high)} must be two numbers from {least:g} on, the smaller first")
        if not 0 < self.depth_range[0] < self.depth_range[1]:
            raise ValueError(f"depth_range {self.depth_range} must be two positive numbers, the smaller first")
        return self

    def forward_passes(self, backbone: BackboneOptions) -> tuple[float, float]:
        """In proportion to the area of the input."""
        return (math.prod(self.crop) / backbone.img_size**2,) * 2
