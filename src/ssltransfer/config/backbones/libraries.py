"""Networks of torchvision and timm, by their names there."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ssltransfer.config.backbones.base import BackboneOptions


class LibraryModel(BackboneOptions):
    """Options of networks of other libraries: any of their modules as layers, and `pool`, the classifier's input.

    A network starts from random weights, from published ones by the task `pretrained`, or from a file by `imported`.
    """

    model: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="Its name in the library.")
    return_nodes: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")], ...] = Field(
        (), description="Modules that are layers too, by their paths in the network (layer3, features.8)."
    )
    flat_layers = ("pool",)
    can_fuse_bn = False
    supports_layerwise_forward = False

    @property
    def base_layers(self) -> tuple[str, ...]:  # type: ignore[override]
        """`return_nodes`, and `pool`."""
        return (*self.return_nodes, "pool")

    @field_validator("return_nodes")
    @classmethod
    def _check_unique(cls, return_nodes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(return_nodes)) < len(return_nodes) or "pool" in return_nodes:
            raise ValueError("name each module once; `pool`, the classifier's input, is always a layer")
        return return_nodes

    @model_validator(mode="after")
    def _check_unchanged(self) -> Self:
        if self.width_mult != 1 or self.stem_stride is not None:
            raise ValueError(f"networks of {self.name} have no width_mult and no stem_stride; remove them")
        return self


class Torchvision(LibraryModel):
    """Any classification network of torchvision, by its name there."""

    name: Literal["torchvision"] = "torchvision"
    reference = "torchvision.models.list_models; protocols 2.8"


class Timm(LibraryModel):
    """Any network of timm, by its name there; timm must be installed."""

    name: Literal["timm"] = "timm"
    reference = "timm.list_models; protocols 2.8"
