"""Jigsaw puzzles."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssltransfer.config.base import Spec
from ssltransfer.config.tasks.base import TaskOptions


class Tiles(Spec):
    """How a square crop is cut into 3x3 tiles, in pixels (released jigsaw code: 255, 85, 64)."""

    crop: int = Field(255, ge=12)
    tile: int = Field(64, ge=4)
    jitter: int | None = Field(None, ge=0, description="Largest offset of a tile in its cell; default all that fits.")
    channel_shift: int = Field(2, ge=0, description="Largest extra offset of each color channel.")
    stem_stride: int | None = Field(None, ge=1, description="First stride on tiles; default the paper's (CaffeNet: 2).")

    @model_validator(mode="after")
    def _fits(self) -> Tiles:
        if self.crop % 3:
            raise ValueError(f"crop {self.crop} is no multiple of 3")
        cell = self.crop // 3
        if self.tile > cell:
            raise ValueError(f"tile {self.tile} is larger than a cell of {cell} (crop {self.crop} / 3)")
        jitter = self.jitter or 0
        if jitter + self.channel_shift > cell - self.tile:
            raise ValueError(
                f"jitter {jitter} + channel_shift {self.channel_shift} is more than the room in a cell "
                f"({cell} - {self.tile} = {cell - self.tile})"
            )
        return self


class Jigsaw(TaskOptions):
    """Jigsaw puzzles: which of N permutations were the nine tiles put in?"""

    name: Literal["jigsaw"] = "jigsaw"
    module: ClassVar[str] = "jigsaw"
    reference: ClassVar[str] = "Noroozi & Favaro 2016; protocols 1.1"
    permutations: int = Field(1000, ge=2, le=40320)
    tiles: Tiles = Tiles()
    resize: int = Field(256, ge=12, description="Short side in pixels before the crop.")
    grayscale_prob: float = Field(0.3, ge=0, le=1, description="Share of images turned gray.")
    hidden_dim: int = Field(4096, ge=1, description="Width of fc7; fc6 has a quarter of it for each tile.")
    dropout: float = Field(0.5, ge=0, lt=1)
    bn: bool = Field(False, description="Batch normalization in fc6 and fc7: a small run leaves chance level sooner.")


class JigsawPP(TaskOptions):
    """Jigsaw++: 701 permutations at Hamming distance >= 3, up to two tiles replaced by another image's."""

    name: Literal["jigsaw++"] = "jigsaw++"
    module: ClassVar[str] = "jigsawpp"
    images_per_group: ClassVar[int] = 2
    reference: ClassVar[str] = "Noroozi et al. 2018, section 4; protocols 1.2"
    permutations: int = Field(701, ge=2, le=2000)
    min_distance: int = Field(3, ge=2, le=9)
    target_mean_hamming: float | None = Field(
        None, ge=0.85, le=0.89, description="Mean Hamming distance / 9 (paper: 0.86)."
    )
    occluders: tuple[int, ...] = Field((0, 1, 2), description="Numbers of occluding tiles, equally likely.")
    tiles: Tiles = Tiles(jitter=18)
    resize: int = Field(256, ge=12, description="Short side in pixels before the crop.")
    grayscale_prob: float = Field(0.7, ge=0, le=1, description="Share of puzzles turned gray, occluders alike.")
    color_projection_prob: float = Field(
        0.0, ge=0, le=1, description="Share of the other puzzles with projected color."
    )
    hidden_dim: int = Field(4096, ge=1, description="Width of fc7; fc6 has a quarter of it for each tile.")
    dropout: float = Field(0.5, ge=0, lt=1)
    bn: bool = Field(False, description="Batch normalization in fc6 and fc7: a small run leaves chance level sooner.")
