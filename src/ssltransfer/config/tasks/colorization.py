"""Colorization."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import Normalize
from ssltransfer.config.tasks.base import ForwardPasses, TaskOptions


class Colorization(TaskOptions):
    """Colorization: which of 313 colors does each location of a gray image have?"""

    name: Literal["colorization"] = "colorization"
    reference = "Zhang et al. 2016; Doersch & Zisserman 2017; protocols 1.7"
    supports_multi_task = True
    needs_map = True
    gpu_hours_per_epoch = 90.0
    resize: int = Field(256, ge=16, description="Side in pixels of the square that the whole image is resized to.")
    hidden_dim: int = Field(4096, ge=1, description="Channels of the 2x2 and 1x1 convolutions of the head.")
    num_soft_bins: int = Field(10, ge=1, le=313, description="Nearest bins that encode a color.")
    sigma: float = Field(5.0, gt=0, description="Standard deviation of the Gaussian over these bins, in Lab units.")
    prior: Literal["training", "uniform"] = Field(
        "training", description="Frequencies of the colors: measured on training images (rare colors weigh more)."
    )
    prior_images: int = Field(5000, ge=1, description="Evenly spaced training images that are measured.")
    prior_smoothing: float = Field(0.5, gt=0, le=1, description="Weight of a uniform distribution in the prior.")
    min_chroma: float = Field(5.0, ge=0, description="Images with no |a| or |b| above this have a loss of zero.")

    @property
    def normalization(self) -> Normalize:
        """Normalization of the inputs of this task."""
        return "lab-lightness"

    def forward_passes(self, backbone: BackboneOptions) -> ForwardPasses:
        """The whole image."""
        return ForwardPasses(1, backbone, self.resize)
