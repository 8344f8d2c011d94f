"""Networks of other libraries, by their names there."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ssltransfer.config.backbones.base import BackboneOptions


class LibraryModel(BackboneOptions):
    """What networks of other libraries share: any modules of theirs as layers, and `pool`, what the classifier reads.

    Published weights are never fetched: a network starts afresh, or is filled from a file by the task `imported`.
    """

    model: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="Its name in the library.")
    return_nodes: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")], ...] = Field(
        (), description="Modules that are layers too, by their paths in the network (layer3, features.8)."
    )
    flat_layers: ClassVar[tuple[str, ...]] = ("pool",)
    can_fuse_bn: ClassVar[bool] = False
    supports_layerwise_forward: ClassVar[bool] = False

    @property
    def base_layers(self) -> tuple[str, ...]:  # type: ignore[override]
        """The `return_nodes` in the order given, and `pool`."""
        return (*self.return_nodes, "pool")

    @field_validator("return_nodes")
    @classmethod
    def _distinct(cls, return_nodes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(return_nodes)) < len(return_nodes) or "pool" in return_nodes:
            raise ValueError("name each module once; `pool`, what the classifier reads, is there by itself")
        return return_nodes

    @model_validator(mode="after")
    def _identity(self) -> LibraryModel:
        if self.width_mult != 1 or self.stem_stride is not None:
            raise ValueError(f"networks of {self.name} have no width_mult and no stem_stride; remove them")
        return self

    @property
    def slug(self) -> str:
        """With `return_nodes`, which baselines of equal networks may differ in."""
        return "-".join([super().slug, *self.return_nodes])


class Torchvision(LibraryModel):
    """Any classification network of torchvision, by its name there."""

    name: Literal["torchvision"] = "torchvision"
    reference: ClassVar[str] = "torchvision.models.list_models; protocols 2.8"


class Timm(LibraryModel):
    """Any network of timm, by its name there; timm must be installed."""

    name: Literal["timm"] = "timm"
    reference: ClassVar[str] = "timm.list_models; protocols 2.8"
