"""Exported programs and ONNX files as frozen networks."""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.backbones.base import BackboneOptions
from ssltransfer.config.base import InputFile

SUFFIXES = (".pt2", ".onnx")
# The line of a model card with the view of its images (`ssltransfer.models.export.card`).
_VIEW = re.compile(r"^- Images: short side to (\d+), central (\d+) x \2, RGB; .*, inside the network$", re.MULTILINE)


class Exported(BackboneOptions):
    """A frozen network of a .pt2 (torch.export) or .onnx file; the task `imported` names the file.

    It takes float32 (B, 3, img_size, img_size) for any B and returns features (B, D), the layer `output`.
    """

    name: Literal["exported"] = "exported"
    reference = "torch.export.load, ONNX Runtime; docs/own_networks.md"
    file: InputFile = Field(description="The file; that of the task.")
    resize: int | None = Field(
        None, ge=16, description="Short side of the image before the center crop; null: 8/7 of img_size."
    )
    base_layers = ("output",)
    flat_layers = ("output",)
    is_network = False
    can_fuse_bn = False
    supports_layerwise_forward = False

    @property
    def short_side(self) -> int:
        """`resize`, or as for other networks."""
        return self.resize or super().short_side

    @model_validator(mode="after")
    def _check_unchanged(self) -> Self:
        if self.width_mult != 1 or self.stem_stride is not None:
            raise ValueError("exported networks have no width_mult and no stem_stride; remove them")
        if self.resize is not None and self.resize < self.img_size:
            raise ValueError(f"resize {self.resize} is smaller than img_size {self.img_size}; increase it")
        return self


def exported_view(file: Path) -> dict[str, int] | None:
    """`img_size` and `resize` in the card that `ssltransfer export` wrote beside a file; None without such a card."""
    try:
        found = _VIEW.search(file.with_suffix(file.suffix + ".md").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return {"resize": int(found[1]), "img_size": int(found[2])} if found else None


def with_exported_backbone(content: dict[str, Any], file: dict[str, Any]) -> dict[str, Any]:
    """The content of a pretext with the file and view of its backbone, unless they are stated."""
    backbone = content.get("backbone", "exported")
    backbone = {"name": backbone} if isinstance(backbone, str) else backbone
    if not isinstance(backbone, dict) or backbone.get("name") != "exported" or "file" in backbone:
        return content
    view = exported_view(InputFile.model_validate(file).location) if "img_size" not in backbone else None
    return content | {"backbone": {"file": file, **(view or {}), **backbone}}
