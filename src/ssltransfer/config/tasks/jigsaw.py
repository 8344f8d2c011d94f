"""Jigsaw puzzles."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import InputFile, Normalize, Spec
from ssltransfer.config.tasks.base import ForwardPasses, TaskOptions


class Tiles(Spec):
    """How a square crop is cut into 3x3 tiles, in pixels (released jigsaw code: 255, 85, 64)."""

    crop: int = Field(255, ge=12)
    tile: int = Field(64, ge=4)
    jitter: int | None = Field(None, ge=0, description="Largest offset of a tile in its cell; default: all that fits.")
    channel_shift: int = Field(2, ge=0, description="Largest additional offset of each color channel.")
    stem_stride: int | None = Field(None, ge=1, description="First stride on tiles; default the paper's (CaffeNet: 2).")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.crop % 3:
            raise ValueError(f"crop {self.crop} is not a multiple of 3")
        cell = self.crop // 3
        if self.tile > cell:
            raise ValueError(f"tile {self.tile} is larger than a cell of {cell} (crop {self.crop} / 3)")
        jitter = self.jitter or 0
        if jitter + self.channel_shift > cell - self.tile:
            raise ValueError(
                f"jitter {jitter} + channel_shift {self.channel_shift} is more than the margin in a cell "
                f"({cell} - {self.tile} = {cell - self.tile})"
            )
        return self


class PuzzleOptions(TaskOptions):
    """Options that jigsaw and jigsaw++ share: the tiles and the context-free network."""

    needs_map = True
    permutations: int
    permutation_file: InputFile | None = Field(
        None, description="The set of permutations, .npy or the .bin of the released code; default: generated."
    )
    tiles: Tiles = Tiles()
    resize: int = Field(256, ge=12, description="Short side in pixels before the crop.")
    hidden_dim: int = Field(4096, ge=1, description="Width of fc7; fc6 has a quarter of it for each tile.")
    dropout: float = Field(0.5, ge=0, lt=1)
    bn: bool = Field(
        False, description="Batch normalization in fc6 and fc7: small runs leave the chance level earlier."
    )

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.tiles.crop > self.resize:
            raise ValueError(f"a crop of {self.tiles.crop} does not fit in images of {self.resize} (resize)")
        return self

    def forward_passes(self, backbone: BackboneOptions) -> ForwardPasses:
        """Nine tiles."""
        return ForwardPasses(9, backbone.for_tiles(self.tiles.stem_stride), self.tiles.tile)


class Jigsaw(PuzzleOptions):
    """Jigsaw puzzles: which of N permutations was applied to the nine tiles?"""

    name: Literal["jigsaw"] = "jigsaw"
    reference = "Noroozi & Favaro 2016; protocols 1.1"
    permutations: int = Field(1000, ge=2, le=40320)
    grayscale_prob: float = Field(0.3, ge=0, le=1, description="Probability that an image is gray.")

    @property
    def normalization(self) -> Normalize:
        """Normalization of the inputs of this task."""
        return "per-channel"
