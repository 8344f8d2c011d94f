"""Metadata in files of weights that this package wrote, read without torch."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import content_digest

# Key of the metadata in an exported safetensors file; the same as in backbone.json.
HEADER = "ssltransfer"


def read_metadata(file: Path) -> dict[str, Any] | None:
    """Metadata of a weights file of this package, from backbone.json or the header of an export; None for other files.

    It has at least backbone, include_top, normalize and activations, as in backbone.json.
    """
    beside = file.with_name("backbone.json")
    try:
        if file.name == "backbone.safetensors" and beside.is_file():
            about: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
            return about if about.get("weights") == content_digest(str(file)) else None
        with safe_open(file, "numpy") as opened:
            header: str | None = (opened.metadata() or {}).get(HEADER)
        return json.loads(header) if header else None
    except (OSError, ValueError, SafetensorError):
        return None


def backbone_of(file: Path) -> dict[str, Any] | None:
    """Options of the backbone of a weights file of this package; None for other files."""
    about = read_metadata(file)
    return {key: value for key, value in about["backbone"].items() if key != "version"} if about else None


def backbone_difference(file: Path, stated: BackboneOptions) -> str | None:
    """One sentence on the first option in which the stated backbone differs from that of a file of this package."""
    own = backbone_of(file)
    if own is None or (differ := first_difference(own, stated)) is None:
        return None
    return (
        f"{file}: these weights are of a backbone with `{differ[0]}`, not `{differ[1]}`; leave `backbone` out or "
        "correct it."
    )


def first_difference(own: dict[str, Any], stated: BackboneOptions) -> tuple[str, str] | None:
    """The first option that makes the weights of two backbones differ, as each of them has it; None if they fit."""
    if own["name"] != stated.name:
        return own["name"], stated.name
    fields = type(stated).model_fields
    default = {key: field.default for key, field in fields.items()}
    given = default | stated.model_dump(mode="json", exclude_defaults=True)
    for key in fields:
        if key not in stated.free_options and (default | own)[key] != given[key]:
            return f"{key}: {json.dumps((default | own)[key])}", f"{key}: {json.dumps(given[key])}"
    return None
