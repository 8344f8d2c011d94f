"""Imported weights."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ssltransfer.config.base import InputFile, Normalize
from ssltransfer.config.tasks.base import ForeignWeights


def _pairs(value: Any) -> Any:
    """A mapping as pairs: the canonical text sorts the keys of a mapping, but the order of the patterns matters."""
    return tuple(value.items()) if isinstance(value, dict) else value


def _compiles(rule: tuple[str, str]) -> tuple[str, str]:
    pattern, replacement = rule
    try:
        re.sub(pattern, replacement, "")
    except (re.error, IndexError) as error:
        raise ValueError(
            f"{pattern!r} -> {replacement!r} is not a regular expression with a replacement ({error}); correct it"
        ) from None
    return rule


Rule = Annotated[tuple[str, str], AfterValidator(_compiles)]


class Imported(ForeignWeights):
    """Weights from a file; prefixes are detected, and every tensor of the network must match."""

    name: Literal["imported"] = "imported"
    reference = "any file of weights; protocols 2.6 and 6"
    exports_fc = True
    file: InputFile = Field(description="A .pth/.pt file (read with weights_only) or .safetensors.")
    prefix: str | None = Field(None, description="Prefix of the tensor names, if several sets of tensors match.")
    rename: Annotated[tuple[Rule, ...], BeforeValidator(_pairs)] = Field(
        (), description="Regular expression -> replacement in the file's tensor names, in order: {'^net[.]': ''}."
    )
    allow_missing: tuple[str, ...] = Field((), description="Patterns of tensors that may be missing; they stay random.")
    allow_unused: tuple[str, ...] = Field(
        (), description="Patterns of tensors inside the network that the backbone does not have; they are ignored."
    )
    normalize: Normalize | None = Field(
        None,
        description="Normalization of the images, or {mean, std} of values in [0, 1]; null: that of the file if this "
        "package wrote it, else timm's record of its weights, else imagenet.",
    )
