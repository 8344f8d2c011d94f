"""Bags of visual words."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.backbones.base import BackboneOptions


class HogWords(BackboneOptions):
    """Bag of visual words of HOG descriptors: not a network, but its features can be used like those of one."""

    name: Literal["hog-words"] = "hog-words"
    reference = "Dalal & Triggs 2005; Noroozi et al. 2018 (CC+HOG)"
    img_size: int = Field(256, ge=32, le=2048)
    vocabulary_size: int = Field(4096, ge=2)
    hog_cell: int = Field(8, ge=2, description="Side of a HOG cell in pixels.")
    base_layers = ("words",)
    flat_layers = ("words",)
    crop_pct = 1.0
    is_network = False

    @model_validator(mode="after")
    def _check_unchanged(self) -> Self:
        if self.width_mult != 1 or self.stem_stride is not None:
            raise ValueError("bags of words have no width_mult and no stem_stride; remove them")
        return self

    def accepts(self, size: int, layer: str) -> bool:
        """Whether an image of `size` pixels has a block of cells."""
        return size >= 2 * self.hog_cell
