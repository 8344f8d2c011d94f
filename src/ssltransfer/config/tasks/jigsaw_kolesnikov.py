"""Jigsaw of embedded patches (Kolesnikov et al. 2019)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import InputFile, Normalize
from ssltransfer.config.tasks.base import ForwardPasses, TaskOptions
from ssltransfer.config.tasks.jigsaw import Tiles


class PatchOptions(TaskOptions):
    """Options of the tasks on nine embedded patches: how patches are cut, embedded and concatenated."""

    tiles: Tiles = Tiles(jitter=21, channel_shift=0)
    resize: int = Field(292, ge=12, description="Side of the square that the image is resized to before the crop.")
    grayscale_prob: float = Field(0.66, ge=0, le=1, description="Probability that an image is gray.")
    grayscale_per_patch: bool = Field(False, description="Draw gray for each patch (paper) or for all nine (code).")
    embed_dim: int = Field(1000, ge=1, description="Dimension of a patch's embedding: the logits of the network.")
    hidden_dim: int = Field(4096, ge=1, description="Width of the layer on the concatenated embeddings.")
    dropout: float = Field(0.5, ge=0, lt=1)
    bn_momentum: float = Field(
        0.003, gt=0, le=1, description="Weight of a batch in that layer's running statistics; short runs need 0.1."
    )

    @property
    def normalization(self) -> Normalize:
        """Normalization of the inputs of this task."""
        return "per-image"

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.tiles.crop > self.resize:
            raise ValueError(f"a crop of {self.tiles.crop} does not fit in images of {self.resize} (resize)")
        return self

    def forward_passes(self, backbone: BackboneOptions) -> ForwardPasses:
        """Nine patches."""
        return ForwardPasses(9, backbone.for_tiles(self.tiles.stem_stride), self.tiles.tile)


class JigsawKolesnikov(PatchOptions):
    """Jigsaw of embedded patches: each image in several of 100 permutations; which ones?"""

    name: Literal["jigsaw-kolesnikov"] = "jigsaw-kolesnikov"
    reference = "Kolesnikov et al. 2019; protocols 1.4"
    permutations: int = Field(100, ge=2, le=40320)
    permutation_file: InputFile | None = Field(None, description="As of `jigsaw`.")
    permutations_per_image: int = Field(8, ge=1, description="Different permutations of each image (paper: 16).")

    @model_validator(mode="after")
    def _enough(self) -> Self:
        shown, total = self.permutations_per_image, self.permutations
        if shown > total:
            raise ValueError(f"permutations_per_image {shown} is more than the {total} permutations")
        return self
