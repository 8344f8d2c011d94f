"""Options of videos, and of how their clips are labeled."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.base import Spec
from ssltransfer.config.formats.base import CacheOptions, Dataset, LabelType, TargetKind


class MotionOptions(Spec):
    """How each clip of a video becomes an image with a map of its independently moving pixels (protocols 1.8)."""

    clip_length: int = Field(
        10, ge=2, le=100, description="Frames per clip; points are tracked from the first to the last."
    )
    clip_stride: int = Field(10, ge=1, description="Frames from the start of a clip to the start of the next.")
    size: tuple[Annotated[int, Field(ge=32, le=2048)], Annotated[int, Field(ge=32, le=2048)]] = Field(
        (240, 320), description="Height and width in pixels that frames are resized to, multiples of 8."
    )
    flow: Literal["dis", "farneback"] = Field("dis", description="Dense optical flow of OpenCV.")
    default_label: Literal["background", "foreground"] = Field(
        "background", description="Label of a cell that no tracked point covers."
    )
    foreground_range: tuple[float, float] = Field(
        (0.02, 0.8), description="Smallest and largest fraction of moving cells; clips outside it are skipped."
    )
    format: Literal["jpeg", "raw"] = "jpeg"
    quality: int = Field(95, ge=1, le=100, description="JPEG quality (4:4:4).")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(side % 8 for side in self.size):
            raise ValueError(f"size {list(self.size)} is not a multiple of the cell size; use multiples of 8")
        if not 0 <= self.foreground_range[0] < self.foreground_range[1] <= 1:
            raise ValueError("foreground_range must be two numbers between 0 and 1, the smaller first")
        if self.format == "raw" and "quality" in self.model_fields_set:
            raise ValueError("raw pixels have no quality; remove `quality`")
        return self

    @property
    def cache(self) -> CacheOptions:
        """Encoding of the images."""
        quality = {"quality": self.quality} if self.format == "jpeg" else {}
        return CacheOptions(short_side=min(self.size), format=self.format, **quality)


class Video(Dataset):
    """Videos at any depth, files or folders of frames; each clip gives its first frame and a motion mask."""

    format: Literal["video"] = "video"
    reference = "Doersch & Zisserman 2017; Perazzi et al. 2016 (DAVIS); protocols 1.8"
    _label_type: ClassVar[LabelType] = "none"
    split: str | None = Field(None, description="A list in DAVIS's ImageSets/480p: use only its clips.")
    # Not in the canonical text: the index lists the videos only.
    motion: MotionOptions = Field(
        MotionOptions(), exclude=True, description="{clip_length, clip_stride, size, flow, ...}: how clips are labeled."
    )
    num_images_hint: int | None = Field(
        None, ge=1, exclude=True, description="Approximate number of clips, for `ssltransfer estimate`."
    )

    @property
    def target(self) -> TargetKind | None:
        """Motion masks."""
        return "motion"
