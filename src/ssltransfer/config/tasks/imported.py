"""Imported weights."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ssltransfer.config.backbones.exported import SUFFIXES
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
    """Weights from a file, prefixes are detected and every tensor must match; or an exported network (.pt2, .onnx)."""

    name: Literal["imported"] = "imported"
    reference = "any file of weights; protocols 2.6 and 6"
    exports_fc = True
    file: InputFile | None = Field(
        None, description="A .pth/.pt file (read with weights_only) or .safetensors; or .pt2 or .onnx."
    )
    url: str | None = Field(
        None,
        pattern=r"^(https?|ftp|file)://\S+$",
        description="Instead of file: a URL of weights, fetched once into $TORCH_HOME.",
    )
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="Digest of the file of the URL.")
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

    @property
    def normalization(self) -> Normalize | None:
        """The stated one; None leaves it to the file."""
        return self.normalize

    @property
    def is_exported(self) -> bool:
        """Whether the file is a whole network, which is used as it is."""
        return self.file is not None and self.file.location.suffix in SUFFIXES

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.file is None) == (self.url is None):
            raise ValueError("set either `file` or `url`")
        if (self.url is None) != (self.sha256 is None):
            raise ValueError("set `sha256` with `url`: the digest of its file, as sha256sum prints it")
        if self.url and self.url.endswith(SUFFIXES):
            raise ValueError("exported networks are not fetched; bring the file and set `file`")
        for key in ("prefix", "rename", "allow_missing", "allow_unused"):
            if self.is_exported and getattr(self, key):
                raise ValueError(f"an exported network is used as a whole; remove `{key}`")
        return self
