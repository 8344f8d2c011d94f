"""Motion segmentation."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ssltransfer.config.formats import TargetKind
from ssltransfer.config.tasks.base import TaskOptions

_Side = Annotated[int, Field(ge=32, le=2048)]


class MotionSegmentation(TaskOptions):
    """Motion segmentation: what in a single frame is going to move by itself?"""

    name: Literal["motion-segmentation"] = "motion-segmentation"
    module: ClassVar[str] = "motion_segmentation"
    gpu_hours_per_epoch: ClassVar[float | None] = 400.0
    reference: ClassVar[str] = "Pathak et al. 2017; Doersch & Zisserman 2017; protocols 1.8"
    supports_multi_task: ClassVar[bool] = True
    targets: ClassVar[TargetKind | None] = "motion"
    input: tuple[_Side, _Side] = Field(
        (240, 320),
        description="Height and width in pixels of what the backbone sees; its own `img_size` is ignored.",
    )
    hidden_dim: int = Field(4096, ge=1, description="Channels of the two 1x1 convolutions of the head.")
    hflip: bool = Field(True, description="Exchange left and right half the time.")
