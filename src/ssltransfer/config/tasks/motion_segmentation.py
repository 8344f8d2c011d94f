"""Motion segmentation."""

import math
from typing import Annotated, Literal

from pydantic import Field

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import Normalize
from ssltransfer.config.tasks.base import ForwardPasses, TaskOptions

_Side = Annotated[int, Field(ge=32, le=2048)]


class MotionSegmentation(TaskOptions):
    """Motion segmentation: which pixels of a single frame move independently of the camera?"""

    name: Literal["motion-segmentation"] = "motion-segmentation"
    reference = "Pathak et al. 2017; Doersch & Zisserman 2017; protocols 1.8"
    supports_multi_task = True
    targets = "motion"
    needs_map = True
    gpu_hours_per_epoch = 400.0
    input: tuple[_Side, _Side] = Field(
        (240, 320), description="Height and width of the input in pixels; the backbone's `img_size` is ignored."
    )
    hidden_dim: int = Field(4096, ge=1, description="Channels of the two 1x1 convolutions of the head.")
    hflip: bool = Field(True, description="Flip left to right with probability 0.5.")

    @property
    def normalization(self) -> Normalize:
        """Normalization of the inputs of this task."""
        return "imagenet"

    def forward_passes(self, backbone: BackboneOptions) -> ForwardPasses:
        """In proportion to the area of the input."""
        return ForwardPasses(math.prod(self.input) / backbone.img_size**2, backbone, backbone.img_size)

    def input_sizes(self, backbone: BackboneOptions) -> tuple[BackboneOptions, tuple[int, ...]]:
        """`input`."""
        return backbone, self.input
