"""Puzzles and places of patches as Kolesnikov et al. (2019) ask them: nine patches, each embedded by itself."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssltransfer.config.tasks.base import TaskOptions
from ssltransfer.config.tasks.puzzles import Tiles


class PatchOptions(TaskOptions):
    """What the two tasks share: how patches are made, embedded and joined."""

    tiles: Tiles = Tiles(jitter=21, channel_shift=0)
    resize: int = Field(292, ge=12, description="The whole image becomes a square of this side before the crop.")
    grayscale_prob: float = Field(0.66, ge=0, le=1, description="Share of images turned gray.")
    grayscale_per_patch: bool = Field(
        False, description="Gray is decided for each patch (the paper), not for all nine (code)."
    )
    embed_dim: int = Field(1000, ge=1, description="Numbers that each patch becomes: the network's logits.")
    hidden_dim: int = Field(4096, ge=1, description="Width of the layer that reads the joined embeddings.")
    dropout: float = Field(0.5, ge=0, lt=1)
    bn_momentum: float = Field(
        0.003, gt=0, le=1, description="Share of a batch in that layer's running statistics; short runs want 0.1."
    )

    @model_validator(mode="after")
    def _crop_fits(self) -> PatchOptions:
        if self.tiles.crop > self.resize:
            raise ValueError(f"a crop of {self.tiles.crop} does not fit in images of {self.resize} (resize)")
        return self


class JigsawKolesnikov(PatchOptions):
    """Jigsaw of embedded patches: each image in several of 100 permutations; which ones?"""

    name: Literal["jigsaw-kolesnikov"] = "jigsaw-kolesnikov"
    module: ClassVar[str] = "jigsaw_kolesnikov"
    reference: ClassVar[str] = "Kolesnikov et al. 2019; protocols 1.4"
    permutations: int = Field(100, ge=2, le=40320)
    permutations_per_image: int = Field(
        8, ge=1, description="Different permutations that each image is shown in (paper: 16)."
    )

    @model_validator(mode="after")
    def _enough(self) -> JigsawKolesnikov:
        if self.permutations_per_image > self.permutations:
            raise ValueError(
                f"permutations_per_image {self.permutations_per_image} is more than the {self.permutations} permutations"
            )
        return self


class RelativePatchLocation(PatchOptions):
    """Relative patch location: in which of eight places does a patch lie, as seen from the center?"""

    name: Literal["relative-patch-location"] = "relative-patch-location"
    module: ClassVar[str] = "relative_patch_location"
    reference: ClassVar[str] = "Kolesnikov et al. 2019; protocols 1.3b"
