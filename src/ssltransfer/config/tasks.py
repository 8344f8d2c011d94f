"""Pretext tasks: what makes a model without labels, and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from ssltransfer.config.base import Options, Spec, name_alone


class TaskOptions(Options):
    """What all tasks share. `module` in stages/pretext/ holds the task."""

    module: ClassVar[str] = ""
    trains: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True


class Tiles(Spec):
    """How a square crop is cut into 3x3 tiles, in pixels (released jigsaw code: 255, 85, 64)."""

    crop: int = Field(255, ge=12)
    tile: int = Field(64, ge=4)
    jitter: int | None = Field(None, ge=0, description="Largest offset of a tile in its cell; default all that fits.")
    channel_shift: int = Field(2, ge=0, description="Largest extra offset of each colour channel.")
    stem_stride: int | None = Field(None, ge=1, description="First stride on tiles; default the paper's (CaffeNet: 2).")

    @model_validator(mode="after")
    def _fits(self) -> Tiles:
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
    source: ClassVar[str] = "Noroozi & Favaro 2016; protocols 1.1"
    permutations: int = Field(1000, ge=2, le=40320)
    tiles: Tiles = Tiles()
    resize: int = Field(256, ge=12, description="Short side in pixels before the crop.")
    grey: float = Field(0.3, ge=0, le=1, description="Share of pictures turned grey.")
    hidden: int = Field(4096, ge=1, description="Width of fc7; fc6 has a quarter of it for each tile.")
    dropout: float = Field(0.5, ge=0, lt=1)
    bn: bool = Field(False, description="Batch normalisation in fc6 and fc7: a small run leaves the guess sooner.")


class JigsawPP(TaskOptions):
    """Jigsaw++: 701 permutations at Hamming distance >= 3, up to two tiles replaced by another picture's."""

    name: Literal["jigsaw++"] = "jigsaw++"
    module: ClassVar[str] = "jigsawpp"
    source: ClassVar[str] = "Noroozi et al. 2018, section 4; protocols 1.2"
    permutations: int = Field(701, ge=2, le=2000)
    min_distance: int = Field(3, ge=2, le=9)
    mean_target: float | None = Field(None, ge=0.85, le=0.89, description="Mean Hamming distance / 9 (paper: 0.86).")
    occluders: tuple[int, ...] = Field((0, 1, 2), description="Numbers of occluding tiles, equally likely.")
    tiles: Tiles = Tiles(jitter=18)
    resize: int = Field(256, ge=12, description="Short side in pixels before the crop.")
    grey: float = Field(0.7, ge=0, le=1, description="Share of puzzles turned grey, occluders alike.")
    projection: float = Field(0.0, ge=0, le=1, description="Share of the other puzzles with projected colour.")
    hidden: int = Field(4096, ge=1, description="Width of fc7; fc6 has a quarter of it for each tile.")
    dropout: float = Field(0.5, ge=0, lt=1)
    bn: bool = Field(False, description="Batch normalisation in fc6 and fc7: a small run leaves the guess sooner.")


class RelativePosition(TaskOptions):
    """Context: where does the second patch lie relative to the first (eight neighbours)?"""

    name: Literal["relative-position"] = "relative-position"
    module: ClassVar[str] = "relative_position"
    source: ClassVar[str] = "Doersch et al. 2015; protocols 1.3a"
    colour: Literal["drop", "project"] = Field("drop", description="Against the chromatic aberration shortcut.")
    patch: int = Field(96, ge=8)
    gap: int = Field(48, ge=0)
    jitter: int = Field(7, ge=0)
    low_resolution: float = Field(0.33, ge=0, le=1, description="Share of patches sent through a low resolution.")
    pixels: tuple[int, int] = Field((150_000, 450_000), description="Height x width after resizing, drawn between.")
    canvas: int = Field(320, ge=24, description="Side of the square that the loader cuts from the resized picture.")
    grids: int = Field(4, ge=1, description="Grids of patches laid on each picture.")
    pairs: int | None = Field(None, ge=1, description="Pairs drawn from each picture; default all neighbours.")
    stem_stride: int | None = Field(None, ge=1, le=8, description="First stride on patches; default the trunk's own.")
    hidden: int = Field(4096, ge=1, description="Width of fc6 (for each patch), fc7 and fc8.")

    @model_validator(mode="after")
    def _fits(self) -> RelativePosition:
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
                f"pixels must rise, and begin at {self.canvas**2} at least: smaller pictures do not fill the canvas "
                f"of {self.canvas} x {self.canvas}"
            )
        if self.pairs is not None and self.pairs > 12 * self.grids:
            raise ValueError(f"{self.grids} grids promise {12 * self.grids} pairs of each picture, not {self.pairs}")
        return self


class Rotation(TaskOptions):
    """Rotation: by how many quarter turns was the picture turned?"""

    name: Literal["rotation"] = "rotation"
    module: ClassVar[str] = "rotation"
    source: ClassVar[str] = "Gidaris et al. 2018; protocols 1.5"
    augment: Literal["random-resized-crop", "inception", "crop"] = Field(
        "random-resized-crop",
        description="RotNet's random box, Inception's (Kolesnikov 2019), or a random crop.",
    )
    hidden: int = Field(4096, ge=1, description="Width of fc6 and fc7 where the trunk is no residual network.")


class RandomNetwork(TaskOptions):
    """No training at all: the random network that the paper clusters as a control."""

    name: Literal["random"] = "random"
    module: ClassVar[str] = "random_network"
    source: ClassVar[str] = "Noroozi et al. 2018, section 5 (5); protocols 1.12"
    trains: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False
    rescale: bool = Field(
        False, description="By pictures: unit variance, equal relative gradients (Krähenbühl et al. 2016); needs data."
    )


class Hog(TaskOptions):
    """Vocabulary of HOG descriptors by k-means, for bags of words."""

    name: Literal["hog"] = "hog"
    module: ClassVar[str] = "hog"
    source: ClassVar[str] = "Noroozi et al. 2018 (CC+HOG); protocols 1.11"
    trains: ClassVar[bool] = False
    sampled: int = Field(1_000_000, ge=1, description="Descriptors that the vocabulary is learned from.")
    iterations: int = Field(20, ge=1)


class Imported(TaskOptions):
    """A state dict from elsewhere, in torchvision's names; prefixes are found, every tensor must match."""

    name: Literal["imported"] = "imported"
    module: ClassVar[str] = "imported"
    source: ClassVar[str] = "any file of weights; protocols 2.6 and 6"
    trains: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False
    file: Path = Field(description="A .pth/.pt file (read with weights_only) or .safetensors.")
    prefix: str | None = Field(None, description="What the tensors' names begin with, where several sets fit.")
    normalise: Literal["imagenet", "half", "none", "per-picture", "per-channel", "caffe"] = "imagenet"


TASKS: tuple[type[TaskOptions], ...] = (
    Jigsaw,
    JigsawPP,
    RelativePosition,
    Rotation,
    RandomNetwork,
    Hog,
    Imported,
)
AnyTask = Annotated[
    Jigsaw | JigsawPP | RelativePosition | Rotation | RandomNetwork | Hog | Imported,
    Field(discriminator="name"),
    BeforeValidator(name_alone),
]
