"""Networks of torchvision and timm, by their names there, and of your own, by their import paths."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ssltransfer.config.backbones.base import EmbeddingOptions
from ssltransfer.config.base import content_digest

TOKENS = re.compile(r"^(?P<path>.+)\.(?P<token>cls|mean|prefix\d+)$")


class LibraryModel(EmbeddingOptions):
    """Options of networks of other libraries: any of their modules as layers, and `pool`, the classifier's input.

    Tokens are maps without the prefix tokens (class, registers). A suffix of the module's path makes them vectors:
    `.cls`, `.prefix1`, `.prefix2` ... is one of the prefix tokens, and `.mean` the mean over the map.

    A network starts from random weights, from published ones by the task `pretrained`, or from a file by `imported`.
    """

    model: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="Its name in the library.")
    return_nodes: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")], ...] = Field(
        (),
        description="Modules that are layers too, by their paths in the network (layer3, features.8, blocks.11); with "
        "`.cls` its class token, with `.prefix1` a further prefix token, with `.mean` the mean of its map.",
    )
    can_fuse_bn = False
    supports_layerwise_forward = False

    @property
    def own_layers(self) -> tuple[str, ...]:  # type: ignore[override]
        """`return_nodes`, and `pool`."""
        return (*self.return_nodes, "pool")

    @property
    def flat_layers(self) -> tuple[str, ...]:  # type: ignore[override]
        """Single tokens and means, `pool` and `representation`."""
        return (*filter(TOKENS.match, self.return_nodes), "pool", "representation")

    @field_validator("return_nodes")
    @classmethod
    def _check_unique(cls, return_nodes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(return_nodes)) < len(return_nodes) or {"pool", "representation"} & set(return_nodes):
            raise ValueError(
                "name each module once; `pool`, the classifier's input, is always a layer, and `embed_dim` adds "
                "`representation`"
            )
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


Scalar = str | int | float | bool | None


class Custom(LibraryModel):
    """A network of your own: any function or class that returns a torch module, by its import path.

    It gets `options` as keyword arguments, takes float (B, 3, img_size, img_size) and returns features (B, C).
    """

    name: Literal["custom"] = "custom"
    reference = "protocols 2.9"
    model: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="MODULE:CALLABLE; the module is installed, or a file in the working directory.",
    )
    options: tuple[tuple[str, Scalar], ...] = Field((), description="Keyword arguments of the callable.")
    digest: str = Field("", description="Of the module's file, so that a changed network is trained again; automatic.")

    @field_validator("options", mode="before")
    @classmethod
    def _as_pairs(cls, options: Any) -> Any:
        return tuple(sorted(options.items())) if isinstance(options, dict) else options

    @model_validator(mode="before")
    @classmethod
    def _with_digest(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("digest") or not isinstance(content.get("model"), str):
            return content
        file = module_file(content["model"].partition(":")[0])
        return content | {"digest": content_digest(str(file)) if file else ""}


def module_file(module: str) -> Path | None:
    """The file of a module in the working directory or of an installed package; None if there is none."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(found.origin) if found and found.origin else None
