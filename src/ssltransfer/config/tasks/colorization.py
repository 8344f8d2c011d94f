"""Colors from lightness."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.tasks.base import TaskOptions


class Colorization(TaskOptions):
    """Colorization: which of 313 colors has each place of a gray image?"""

    name: Literal["colorization"] = "colorization"
    module: ClassVar[str] = "colorization"
    gpu_hours_per_epoch: ClassVar[float | None] = 90.0
    supports_multi_task: ClassVar[bool] = True
    reference: ClassVar[str] = "Zhang et al. 2016; Doersch & Zisserman 2017; protocols 1.7"
    resize: int = Field(256, ge=16, description="Side of the square that the whole image is squeezed to.")
    hidden_dim: int = Field(4096, ge=1, description="Channels of the head's 2x2 and 1x1 convolutions.")
    num_soft_bins: int = Field(10, ge=1, le=313, description="Nearest bins that share in a color's code.")
    sigma: float = Field(5.0, gt=0, description="Deviation of their Gaussian, in units of Lab.")
    prior: Literal["training", "uniform"] = Field(
        "training", description="How often colors are: measured on training images, so that rare ones weigh more."
    )
    prior_images: int = Field(5000, ge=1, description="Training images that are measured, evenly spaced.")
    prior_smoothing: float = Field(0.5, gt=0, le=1, description="Share of a uniform distribution mixed into the prior.")
    min_chroma: float = Field(5.0, ge=0, description="Images whose |a| and |b| never exceed this teach nothing.")
