"""Models on disk: weights as safetensors, and a JSON with the architecture and activations to verify on reading."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import TypeAdapter
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError, atomic_write, file_digest, read_json, write_json, write_text
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.backbones import AnyBackbone
from ssltransfer.config.protocols import Pool
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.logs import logger
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone
from ssltransfer.models.normalize import Normalize, normalize
from ssltransfer.models.pooling import pooled
from ssltransfer.models.state_dicts import load_tensors, read_tensors

_BACKBONE: TypeAdapter[AnyBackbone] = TypeAdapter(AnyBackbone)
GRID = 3  # patches a side


@dataclass(frozen=True)
class PretrainedModel:
    """A trained backbone and its preprocessing.

    Attributes:
        backbone: in evaluation mode.
        normalization: of its training images.
        digest: of the weights file.
        name: of the model's folder.
    """

    backbone: Backbone
    normalization: Normalize
    digest: str
    name: str

    @property
    def view(self) -> ResizeCenterCrop:
        """Resize and center crop for features: short side 256, crop 227 or 224, or in proportion."""
        return ResizeCenterCrop(self.backbone.options.short_side, self.backbone.options.img_size)

    @property
    def patches_view(self) -> ResizeCenterCrop:
        """The same for a grid of patches: for patches of 64 short side 224, center crop 192 (protocols 4.5)."""
        size = self.backbone.options.img_size
        return ResizeCenterCrop(round(GRID * size * 7 / 6), GRID * size)

    def layers_of(self, images: Tensor, layers: list[str]) -> dict[str, Tensor]:
        """Features of some layers for images uint8 (B, 3, S, S)."""
        features: dict[str, Tensor] = self.backbone(normalize(images, self.normalization), layers)
        return features

    def features_of(self, images: Tensor, layer: str, pool: Pool | None, *, patches: bool = False) -> Tensor:
        """A layer for images uint8 or float (B, 3, S, S), pooled and flattened, float32 (B, dims).

        With `patches` the images are (B, 3, 3S, 3S): each of the nine patches is pooled, and their mean is taken
        afterwards (Kolesnikov et al. 2019; protocols 4.5).
        """
        if patches:
            size = self.backbone.options.img_size
            grid = images.unfold(2, size, size).unfold(3, size, size)  # B, 3, 3, 3, S, S: channel, row, column
            images = grid.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        features = pooled(self.layers_of(images, [layer])[layer].float(), pool).flatten(1)
        return features.unflatten(0, (-1, GRID**2)).mean(1) if patches else features


def write_weights(file: Path, backbone: Backbone) -> None:
    """Write the tensors of a backbone as safetensors."""
    # Contiguous copies, so that equal weights give equal bytes.
    tensors = {name: value.detach().cpu().contiguous() for name, value in backbone.state_dict().items()}
    with atomic_write(file) as beside:
        safetensors.torch.save_file(tensors, beside)


def write_model(folder: Path, backbone: Backbone, normalization: Normalize, made: dict[str, Any]) -> dict[str, Any]:
    """Write backbone.safetensors and backbone.json into `folder`; the result is for the manifest.

    Tensors of torchvision's architectures have torchvision's names. `made` is the spec of the training, as JSON.
    """
    write_weights(folder / "backbone.safetensors", backbone)
    digest = file_digest(folder / "backbone.safetensors")
    about = {
        "backbone": json.loads(backbone.options.canonical()),
        "layers": {name: list(shape) for name, shape in backbone.shapes().items()},
        "include_top": backbone.include_top,
        "normalize": normalization,
        "tensors": {name: list(value.shape) for name, value in backbone.state_dict().items()},
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "made": made,
        "activations": _activations(backbone, normalization),
        "weights": digest,
    }
    write_json(folder / "backbone.json", about)
    return {"weights": digest, "normalize": normalization, "layers": list(backbone.layers)}


def finish_model(
    work: WorkDir,
    backbone: Backbone,
    normalization: Normalize,
    content: dict[str, Any],
    *,
    files: Sequence[str] = (),
    **measured: Any,
) -> None:
    """Write the model of a stage, its learning curve if it was trained, and its manifest, and remove the checkpoint.

    Args:
        work: of the stage; curve.jsonl is copied from its folder.
        content: further entries of the manifest.
        files: further files beside the manifest.
        measured: entries of run.json.
    """
    folder, curve = work.output.parent, work.folder / "curve.jsonl"
    content = content | write_model(folder, backbone, normalization, json.loads(work.spec))
    names = ["backbone.safetensors", "backbone.json", *files]
    if curve.is_file():
        write_text(folder / curve.name, curve.read_text())
        content["curve"] = file_digest(folder / curve.name)
        names.append(curve.name)
    work.finish(content, files=names, **measured)
    (work.folder / "checkpoint.pt").unlink(missing_ok=True)


def read_model(manifest: Path, device: torch.device | str = "cpu") -> PretrainedModel:
    """Read the model of a manifest, in channels_last, and verify its activations.

    Raises:
        ArtifactError: files are missing or inconsistent, or activations differ.
    """
    content = read_json(manifest)
    if content.get("stage") not in ("pretext", "student") or "weights" not in content:
        raise ArtifactError(f"{manifest}: not the manifest of a model.")
    file = manifest.parent / "backbone.safetensors"
    about = read_json(manifest.parent / "backbone.json")
    if not file.is_file() or file_digest(file) != content["weights"] or about["weights"] != content["weights"]:
        raise ArtifactError(f"{file}: not the weights of {manifest.name}; remove {manifest} and rerun its stage.")
    backbone = build_backbone(_BACKBONE.validate_python(about["backbone"]), include_top=about["include_top"])
    load_tensors(backbone, read_tensors(file), file)
    backbone.eval().requires_grad_(False)
    _verify(backbone, about, file)
    backbone.to(device).to(memory_format=torch.channels_last)  # faster, on CPUs too
    return PretrainedModel(backbone, about["normalize"], content["weights"], manifest.parent.name)


def start_from(backbone: Backbone, manifest: Path) -> PretrainedModel:
    """Give a backbone, in place, the weights of a model, which is returned.

    Fully-connected layers and the `representation` that the model lacks keep their random weights.

    Raises:
        ArtifactError: the model is of another architecture or size.
    """
    model = read_model(manifest)
    given, own = model.backbone.state_dict(), backbone.state_dict()
    fresh, unused = own.keys() - given.keys(), given.keys() - own.keys()
    embedding = {name for name in fresh if name.startswith("representation.")}
    only_top = not (fresh - embedding and model.backbone.include_top) and not (unused and backbone.include_top)
    if not only_top or any(given[name].shape != own[name].shape for name in own.keys() & given.keys()):
        raise ArtifactError(
            f"{manifest}: a {model.backbone.options.slug}, whose weights do not fit a {backbone.options.slug}; start "
            "from a model with the same backbone."
        )
    backbone.load_state_dict(own | {name: given[name] for name in own.keys() & given.keys()})
    kept = f", without {', '.join(sorted({name.partition('.')[0] for name in fresh}))}: random" if fresh else ""
    logger.info(f"initial weights of {model.name}{kept}")
    return model


def verify_activations(backbone: Backbone, about: dict[str, Any], file: Path) -> None:
    """Compare a backbone's activations with those in the metadata, if both are of the same architecture.

    Raises:
        ArtifactError: the activations differ.
    """
    same = about["backbone"] == json.loads(backbone.options.canonical())
    if same and about["include_top"] == backbone.include_top:
        _verify(backbone, about, file)


def require_activations(backbone: Backbone, normalization: Normalize, file: Path | str) -> None:
    """Compute the activations of imported weights, which other code has not verified.

    Raises:
        ArtifactError: the last layer is constant or not finite, so the weights do not belong to this network.
    """
    values = torch.tensor(_activations(backbone, normalization))
    if not values.isfinite().all() or values[1] == 0:
        raise ArtifactError(
            f"{file}: on a fixed image the last layer of {backbone.options.slug} is constant or not finite; the "
            "weights belong to another network."
        )


def _verify(backbone: Backbone, about: dict[str, Any], file: Path) -> None:
    computed, stored = _activations(backbone, about["normalize"]), about["activations"]
    if not torch.allclose(torch.tensor(computed), torch.tensor(stored), rtol=1e-2, atol=1e-4):
        raise ArtifactError(
            f"{file}: on fixed inputs its last layer gives {computed[:3]}, not the stored {stored[:3]}; "
            "the code of this backbone has changed: raise its version and train the model again."
        )


@torch.no_grad()
def _activations(backbone: Backbone, normalization: Normalize) -> list[float]:
    """Some statistics and values of the last layer for a fixed image: a fingerprint for any hardware."""
    size = backbone.options.img_size
    ramp = torch.arange(size).view(1, 1, 1, size) + 3 * torch.arange(size).view(1, 1, size, 1)
    images = (ramp * torch.tensor([1, 2, 5]).view(1, 3, 1, 1) % 256).to(torch.uint8)
    was_training, device = backbone.training, next(iter(backbone.state_dict().values())).device
    backbone.eval()
    last = backbone(normalize(images.to(device), normalization))[backbone.layers[-1]].float().flatten()
    backbone.train(was_training)
    picked = last[torch.linspace(0, len(last) - 1, 8).long()]
    return [round(float(v), 6) for v in (last.mean(), last.std(), last.abs().max(), *picked)]
