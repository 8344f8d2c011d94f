"""Relative position of two patches."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import Normalize
from ssltransfer.config.tasks.base import ForwardPasses, TaskOptions


class PatchGrid(TaskOptions):
    """How pairs of neighboring patches are cut from an image (Doersch et al. 2015)."""

    needs_map = True
    patch: int = Field(96, ge=8, description="Side of a patch in pixels.")
    gap: int = Field(48, ge=0, description="Pixels between neighboring patches.")
    jitter: int = Field(7, ge=0, description="Largest shift of a patch in either direction, in pixels.")
    downsample_prob: float = Field(0.33, ge=0, le=1, description="Probability that a patch is down- and upsampled.")
    area_range: tuple[int, int] = Field((150_000, 450_000), description="Range of height x width after resizing.")
    crop_size: int = Field(320, ge=24, description="Side of the square that the loader cuts from the resized image.")
    grids_per_image: int = Field(4, ge=1, description="Grids of patches on each image.")
    pairs_per_image: int | None = Field(None, ge=1, description="Pairs drawn from each image; default all neighbors.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        need = 2 * self.patch + self.gap + 2 * self.jitter
        if need > self.crop_size:
            raise ValueError(
                f"two patches of {self.patch} with gap {self.gap} and jitter {self.jitter} need {need} pixels, "
                f"more than crop_size {self.crop_size}"
            )
        if 2 * self.jitter > self.gap:
            raise ValueError(f"jitter {self.jitter} is more than half the gap of {self.gap}, so patches may touch")
        if not self.crop_size**2 <= self.area_range[0] <= self.area_range[1]:
            raise ValueError(
                f"area_range must be ascending from {self.crop_size**2} or more: smaller images cannot fill a crop "
                f"of {self.crop_size} x {self.crop_size}"
            )
        fewest = 12 * self.grids_per_image
        if self.pairs_per_image is not None and self.pairs_per_image > fewest:
            raise ValueError(
                f"pairs_per_image {self.pairs_per_image} is more than {fewest}, the fewest pairs of "
                f"{self.grids_per_image} grids"
            )
        return self

    def forward_passes(self, backbone: BackboneOptions) -> ForwardPasses:
        """The patches of all grids."""
        across = max(2, self.crop_size // (self.patch + self.gap))
        return ForwardPasses(self.grids_per_image * across**2, backbone, self.patch)

    def short_side(self, backbone: BackboneOptions) -> int:
        """That of the largest resized square."""
        return math.ceil(math.sqrt(self.area_range[1]))


class RelativePosition(PatchGrid):
    """Context: which of eight neighbors of the first patch is the second?"""

    name: Literal["relative-position"] = "relative-position"
    reference = "Doersch et al. 2015; protocols 1.3a"
    supports_multi_task = True
    gpu_hours_per_epoch = 350.0
    color_mode: Literal["drop", "project"] = Field("drop", description="Against the chromatic aberration shortcut.")
    stem_stride: int | None = Field(None, ge=1, le=8, description="First stride on patches; default the backbone's.")
    hidden_dim: int = Field(4096, ge=1, description="Width of fc6 (for each patch), fc7 and fc8.")

    @property
    def normalization(self) -> Normalize:
        """Normalization of the inputs of this task."""
        return "per-image"

    def forward_passes(self, backbone: BackboneOptions) -> ForwardPasses:
        """The patches of all grids, with `stem_stride`."""
        return super().forward_passes(backbone.with_stem_stride(self.stem_stride))
