"""Where a patch lies relative to another."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssltransfer.config.tasks.base import TaskOptions


class PatchGrid(TaskOptions):
    """How pairs of neighboring patches are cut from a image (Doersch et al. 2015)."""

    patch: int = Field(96, ge=8)
    gap: int = Field(48, ge=0)
    jitter: int = Field(7, ge=0)
    downsample_prob: float = Field(0.33, ge=0, le=1, description="Share of patches sent through a low resolution.")
    area_range: tuple[int, int] = Field((150_000, 450_000), description="Height x width after resizing, drawn between.")
    crop_size: int = Field(320, ge=24, description="Side of the square that the loader cuts from the resized image.")
    grids_per_image: int = Field(4, ge=1, description="Grids of patches laid on each image.")
    pairs_per_image: int | None = Field(None, ge=1, description="Pairs drawn from each image; default all neighbors.")

    @model_validator(mode="after")
    def _fits(self) -> PatchGrid:
        need = 2 * self.patch + self.gap + 2 * self.jitter
        if need > self.crop_size:
            raise ValueError(
                f"two patches of {self.patch} with gap {self.gap} and jitter {self.jitter} need {need} pixels, "
                f"more than crop_size {self.crop_size}"
            )
        if 2 * self.jitter > self.gap:
            raise ValueError(f"jitter {self.jitter} lets patches touch across a gap of {self.gap}: half of it at most")
        if not self.crop_size**2 <= self.area_range[0] <= self.area_range[1]:
            raise ValueError(
                f"area_range must rise and start at {self.crop_size**2} or more: smaller images do not fill a crop "
                f"of {self.crop_size} x {self.crop_size}"
            )
        if self.pairs_per_image is not None and self.pairs_per_image > 12 * self.grids_per_image:
            raise ValueError(
                f"pairs_per_image {self.pairs_per_image} is more than {12 * self.grids_per_image}, the fewest pairs of "
                f"{self.grids_per_image} grids"
            )
        return self


class RelativePosition(PatchGrid):
    """Context: where does the second patch lie relative to the first (eight neighbors)?"""

    name: Literal["relative-position"] = "relative-position"
    module: ClassVar[str] = "relative_position"
    gpu_hours_per_epoch: ClassVar[float | None] = 350.0
    supports_multi_task: ClassVar[bool] = True
    reference: ClassVar[str] = "Doersch et al. 2015; protocols 1.3a"
    color_mode: Literal["drop", "project"] = Field("drop", description="Against the chromatic aberration shortcut.")
    stem_stride: int | None = Field(
        None, ge=1, le=8, description="First stride on patches; default the backbone's own."
    )
    hidden_dim: int = Field(4096, ge=1, description="Width of fc6 (for each patch), fc7 and fc8.")
