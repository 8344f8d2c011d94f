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
    endpoints: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")], ...] = Field(
        (), description="Modules that are layers too, by their paths in the network (layer3, features.8)."
    )
    vectors: ClassVar[tuple[str, ...]] = ("pool",)
    foldable: ClassVar[bool] = False
    stepwise: ClassVar[bool] = False

    @property
    def convolutions(self) -> tuple[str, ...]:  # type: ignore[override]
        """The endpoints in the order given, and `pool`."""
        return (*self.endpoints, "pool")

    @field_validator("endpoints")
    @classmethod
    def _distinct(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(endpoints)) < len(endpoints) or "pool" in endpoints:
            raise ValueError("name each module once; `pool`, what the classifier reads, is there by itself")
        return endpoints

    @model_validator(mode="after")
    def _identity(self) -> LibraryModel:
        if self.width != 1 or self.stem_stride is not None:
            raise ValueError(
                f"width and stem_stride cannot be set for a network of {self.name}; leave them out, or name another"
            )
        return self

    @property
    def slug(self) -> str:
        """With the endpoints, of which controls of equal networks may have different ones."""
        return "-".join([super().slug, *self.endpoints])


class Torchvision(LibraryModel):
    """Any classification network of torchvision, by its name there."""

    name: Literal["torchvision"] = "torchvision"
    reference: ClassVar[str] = "torchvision.models.list_models; protocols 2.8"


class Timm(LibraryModel):
    """Any network of timm, by its name there; timm must be installed."""

    name: Literal["timm"] = "timm"
    reference: ClassVar[str] = "timm.list_models; protocols 2.8"
