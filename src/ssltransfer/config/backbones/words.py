"""Bags of words."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.backbones.base import BackboneOptions


class HogWords(BackboneOptions):
    """Bag of words of HOG descriptors: no network, but a model like any other to what follows."""

    name: Literal["hog-words"] = "hog-words"
    reference: ClassVar[str] = "Dalal & Triggs 2005; Noroozi et al. 2018 (CC+HOG)"
    img_size: int = Field(256, ge=32, le=2048)
    vocabulary_size: int = Field(4096, ge=2)
    hog_cell: int = Field(8, ge=2, description="Side of a HOG cell in pixels.")
    base_layers: ClassVar[tuple[str, ...]] = ("words",)
    flat_layers: ClassVar[tuple[str, ...]] = ("words",)

    @property
    def short_side(self) -> int:
        """The crop is the whole short side."""
        return self.img_size
