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
    low_resolution: float = Field(0.33, ge=0, le=1, description="Share of patches sent through a low resolution.")
    pixels: tuple[int, int] = Field((150_000, 450_000), description="Height x width after resizing, drawn between.")
    canvas: int = Field(320, ge=24, description="Side of the square that the loader cuts from the resized image.")
    grids: int = Field(4, ge=1, description="Grids of patches laid on each image.")
    pairs: int | None = Field(None, ge=1, description="Pairs drawn from each image; default all neighbors.")

    @model_validator(mode="after")
    def _fits(self) -> PatchGrid:
        need = 2 * self.patch + self.gap + 2 * self.jitter
        if need > self.canvas:
            raise ValueError(
                f"two patches of {self.patch} with gap {self.gap} and jitter {self.jitter} need {need} pixels, "
                f"more than the canvas of {self.canvas}"
            )
        if 2 * self.jitter > self.gap:
            raise ValueError(f"jitter {self.jitter} lets patches touch across a gap of {self.gap}: half of it at most")
        if not self.canvas**2 <= self.pixels[0] <= self.pixels[1]:
            raise ValueError(
                f"pixels must rise, and begin at {self.canvas**2} at least: smaller images do not fill the canvas "
                f"of {self.canvas} x {self.canvas}"
            )
        if self.pairs is not None and self.pairs > 12 * self.grids:
            raise ValueError(f"{self.grids} grids promise {12 * self.grids} pairs of each image, not {self.pairs}")
        return self


class RelativePosition(PatchGrid):
    """Context: where does the second patch lie relative to the first (eight neighbors)?"""

    name: Literal["relative-position"] = "relative-position"
    module: ClassVar[str] = "relative_position"
    shares: ClassVar[bool] = True
    source: ClassVar[str] = "Doersch et al. 2015; protocols 1.3a"
    color: Literal["drop", "project"] = Field("drop", description="Against the chromatic aberration shortcut.")
    stem_stride: int | None = Field(
        None, ge=1, le=8, description="First stride on patches; default the backbone's own."
    )
    hidden: int = Field(4096, ge=1, description="Width of fc6 (for each patch), fc7 and fc8.")
