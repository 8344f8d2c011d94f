"""Imported weights."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.base import InputFile, Normalize
from ssltransfer.config.tasks.base import ForeignWeights


class Imported(ForeignWeights):
    """Weights from a file; prefixes are detected, and every tensor of the network must match."""

    name: Literal["imported"] = "imported"
    reference = "any file of weights; protocols 2.6 and 6"
    exports_fc = True
    file: InputFile = Field(description="A .pth/.pt file (read with weights_only) or .safetensors.")
    prefix: str | None = Field(None, description="Prefix of the tensor names, if several sets of tensors match.")
    allow_missing: tuple[str, ...] = Field((), description="Patterns of tensors that may be missing; they stay random.")
    allow_unused: tuple[str, ...] = Field(
        (), description="Patterns of tensors inside the network that the backbone does not have; they are ignored."
    )
    normalize: Normalize | None = Field(
        None,
        description="Normalization of the images, or {mean, std} of values in [0, 1]; null: that of the file if this "
        "package wrote it, else timm's record of its weights, else imagenet.",
    )
