"""Trunks on disk: safetensors beside a JSON that says what they are and how to know that they were read right."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssltransfer.artefacts.files import ArtefactError, digest_of, read_json, replacing, write_json
from ssltransfer.config.trunks import AnyTrunk
from ssltransfer.data.transforms import CentreSquare
from ssltransfer.models.build import build_trunk
from ssltransfer.models.normalise import Normalise, normalise
from ssltransfer.models.state_dicts import load_tensors, read_tensors
from ssltransfer.models.trunk import Trunk

_TRUNK: TypeAdapter[AnyTrunk] = TypeAdapter(AnyTrunk)
GRID = 3  # patches a side
# Where an exported safetensors file says what trunk.json says beside one of our own.
HEADER = "ssltransfer"


@dataclass(frozen=True)
class Model:
    """A trunk with weights, and how its pictures are prepared.

    Attributes:
        trunk: in evaluation mode.
        rule: normalisation it was trained with.
        digest: of the weights' file.
        name: as the folder is called.
    """

    trunk: Trunk
    rule: Normalise
    digest: str
    name: str

    @property
    def view(self) -> CentreSquare:
        """Preparation of a picture for features: short side 256, centre crop 227 or 224, or in proportion."""
        return CentreSquare(self.trunk.options.short_side, self.trunk.options.size)

    @property
    def patches_view(self) -> CentreSquare:
        """The same for a grid of patches: for patches of 64 short side 224, centre crop 192 (protocols 4.5)."""
        size = self.trunk.options.size
        return CentreSquare(round(GRID * size * 7 / 6), GRID * size)

    def layers_of(self, pictures: Tensor, layers: list[str]) -> dict[str, Tensor]:
        """uint8 (B, 3, S, S) -> activations of layers."""
        found: dict[str, Tensor] = self.trunk(normalise(pictures, self.rule), layers)
        return found

    def layers_of_patches(self, pictures: Tensor, layers: list[str]) -> dict[str, Tensor]:
        """uint8 (B, 3, 3S, 3S) -> activations of layers, the mean over the nine patches (protocols 4.5)."""
        size = self.trunk.options.size
        grid = pictures.unfold(2, size, size).unfold(3, size, size)  # B, 3, 3, 3, S, S: channel, row, column
        patches = grid.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        found = self.layers_of(patches, layers)
        return {name: value.float().unflatten(0, (-1, GRID**2)).mean(1) for name, value in found.items()}


def write_model(folder: Path, trunk: Trunk, rule: Normalise, made: dict[str, Any]) -> dict[str, Any]:
    """Write trunk.safetensors and trunk.json into `folder`.

    Args:
        folder: of the named model.
        trunk: its tensors and layers are written; where the architecture is torchvision's, so are the names.
        rule: normalisation it was trained with.
        made: how it came about, as JSON.

    Returns:
        What the manifest says of the weights.
    """
    # Without inference mode's leftovers and views: equal weights give equal bytes.
    tensors = {name: value.detach().cpu().contiguous() for name, value in trunk.state_dict().items()}
    with replacing(folder / "trunk.safetensors") as beside:
        safetensors.torch.save_file(tensors, beside)
    digest = digest_of(folder / "trunk.safetensors")
    about = {
        "trunk": json.loads(trunk.options.canonical()),
        "layers": {name: list(shape) for name, shape in trunk.shapes().items()},
        "top": trunk.layers == trunk.options.layers,
        "normalise": rule,
        "tensors": {name: list(value.shape) for name, value in tensors.items()},
        "parameters": sum(parameter.numel() for parameter in trunk.parameters()),
        "made": made,
        "activations": _activations(trunk, rule),
        "weights": digest,
    }
    write_json(folder / "trunk.json", about)
    return {"weights": digest, "normalise": rule, "layers": list(trunk.layers)}


def read_model(manifest: Path, device: torch.device | str = "cpu") -> Model:
    """Read the model whose manifest this is, and prove that it was read right.

    Raises:
        ArtefactError: missing, of another architecture than it says, or its activations differ.
    """
    content = read_json(manifest)
    if content.get("stage") not in ("pretext", "student") or "weights" not in content:
        raise ArtefactError(f"{manifest}: not a manifest of a model.")
    file = manifest.parent / "trunk.safetensors"
    about = read_json(manifest.parent / "trunk.json")
    if not file.is_file() or digest_of(file) != content["weights"] or about["weights"] != content["weights"]:
        raise ArtefactError(
            f"{file}: not the weights that {manifest.name} speaks of; remove {manifest} and run its stage again."
        )
    trunk = build_trunk(_TRUNK.validate_python(about["trunk"]), top=about["top"])
    load_tensors(trunk, read_tensors(file), file)
    trunk.eval().requires_grad_(False)
    rule: Normalise = about["normalise"]
    _prove(trunk, about, file)
    return Model(trunk.to(device), rule, content["weights"], manifest.parent.name)


def said_of(file: Path) -> dict[str, Any] | None:
    """What this package wrote of a file of weights, beside it (trunk.json) or in its head (an export); None of others.

    Returns:
        At least trunk, top, normalise and activations, as in trunk.json.
    """
    beside = file.with_name("trunk.json")
    if file.name == "trunk.safetensors" and beside.is_file():
        about: dict[str, Any] = read_json(beside)
        return about if about.get("weights") == digest_of(file) else None
    try:
        with safe_open(file, "pt") as opened:
            head: str | None = (opened.metadata() or {}).get(HEADER)
    except (SafetensorError, OSError):
        return None
    return json.loads(head) if head else None


def prove_same(trunk: Trunk, about: dict[str, Any], file: Path) -> None:
    """Where a trunk is the one that a file was written from, it must compute what that computed.

    Args:
        trunk: filled from the file.
        about: as from `said_of`.
        file: for messages.

    Raises:
        ArtefactError: its activations differ.
    """
    same = about["trunk"] == json.loads(trunk.options.canonical())
    if same and about["top"] == (trunk.layers == trunk.options.layers):
        _prove(trunk, about, file)


def _prove(trunk: Trunk, about: dict[str, Any], file: Path) -> None:
    found, stored = _activations(trunk, about["normalise"]), about["activations"]
    if not torch.allclose(torch.tensor(found), torch.tensor(stored), rtol=1e-2, atol=1e-4):
        raise ArtefactError(
            f"{file}: on fixed inputs its last layer gives {found[:3]}, not {stored[:3]} as when it was written; "
            "the code of this trunk has changed: raise its version and make the model again."
        )


@torch.no_grad()
def _activations(trunk: Trunk, rule: Normalise) -> list[float]:
    """A few activations of the last layer on fixed pictures: a fingerprint that survives other hardware."""
    size = trunk.options.size
    ramp = torch.arange(size).view(1, 1, 1, size) + 3 * torch.arange(size).view(1, 1, size, 1)
    pictures = (ramp * torch.tensor([1, 2, 5]).view(1, 3, 1, 1) % 256).to(torch.uint8)
    was, device = trunk.training, next(iter(trunk.state_dict().values())).device
    trunk.eval()
    last = trunk(normalise(pictures.to(device), rule))[trunk.layers[-1]].float().flatten()
    trunk.train(was)
    picked = last[torch.linspace(0, len(last) - 1, 8).long()]
    return [round(float(v), 6) for v in (last.mean(), last.std(), last.abs().max(), *picked)]
