"""Trunks on disk: safetensors beside a JSON that says what they are and how to know that they were read right."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from torch import Tensor

from ssltransfer.artefacts.files import ArtefactError, digest_of, read_json, replacing, write_json
from ssltransfer.config.trunks import AnyTrunk
from ssltransfer.data.transforms import CentreSquare
from ssltransfer.models.build import build_trunk
from ssltransfer.models.normalise import Normalise, normalise
from ssltransfer.models.trunk import Trunk

_TRUNK: TypeAdapter[AnyTrunk] = TypeAdapter(AnyTrunk)
GRID = 3  # patches a side
_PUBLISHED = ("encoder_q.", "base_encoder.", "teacher.")  # of networks that a file holds twice
_COUNTER = "num_batches_tracked"


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
    found, stored = _activations(trunk, rule), about["activations"]
    if not torch.allclose(torch.tensor(found), torch.tensor(stored), rtol=1e-2, atol=1e-4):
        raise ArtefactError(
            f"{file}: on fixed inputs its last layer gives {found[:3]}, not {stored[:3]} as when it was written; "
            "the code of this trunk has changed: raise its version and make the model again."
        )
    return Model(trunk.to(device), rule, content["weights"], manifest.parent.name)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors, or from a pickle that holds nothing but tensors.

    Raises:
        ArtefactError: missing, not such a file, or a pickle that wants to run code.
    """
    if not file.is_file():
        raise ArtefactError(f"{file}: there is no such file of weights.")
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ArtefactError(f"{file}: not a readable file of weights ({_first_line(error)}).") from None
    except Exception as error:  # pickle.UnpicklingError and its kin: what weights_only refuses
        raise ArtefactError(f"{file}: holds more than tensors and is not opened ({_first_line(error)}).") from None
    tensors = dict(_flat(content))
    if not tensors:
        raise ArtefactError(f"{file}: holds no tensors.")
    return tensors


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _flat(content: Any, above: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts, named by its path: `teacher.backbone.conv1.weight`."""
    if isinstance(content, dict):
        for name, value in content.items():
            # Containers that say nothing about what is in them.
            inner = above if name in ("state_dict", "model", "model_state_dict") and not above else f"{above}{name}."
            # What DataParallel wrapped inside a network: DeepCluster's features.module.0.weight.
            inner = inner.replace(".module.", ".")
            yield from _flat(value, inner)
    elif isinstance(content, Tensor):
        yield above.removesuffix("."), content


def load_tensors(
    trunk: Trunk,
    tensors: dict[str, Tensor],
    where: Path | str,
    *,
    prefix: str | None = None,
    fresh: Sequence[str] = (),
) -> str:
    """Fill a trunk; every one of its tensors must be there in its shape, but for those that may stay fresh.

    Prefixes such as `module.encoder_q.` are found by the best match; what else the file holds (a head) is left. Where
    a file holds the network twice, the one is taken that its authors publish: MoCo's query encoder (base encoder in
    its third version), DINO's teacher. Counters of batch normalisation may be missing.

    Args:
        trunk: filled in place.
        tensors: by name.
        where: the file, for messages.
        prefix: given instead of found.
        fresh: patterns of the trunk's tensors that the file may lack, such as `classifier.*`.

    Returns:
        One line: how many tensors and parameters matched, under which prefix, and what was left.

    Raises:
        ArtefactError: a tensor is missing or has another shape, or several sets of tensors fit alike.
    """
    wanted = {key: value.shape for key, value in trunk.state_dict().items() if not key.endswith(_COUNTER)}

    def fit(prefix: str) -> int:
        return sum(prefix + key in tensors and tensors[prefix + key].shape == wanted[key] for key in wanted)

    if prefix is None:
        prefix = _prefix(wanted, tensors, fit, where)
    matched: dict[str, int] = {}
    for key, shape in wanted.items():
        given = tensors.get(prefix + key)
        if given is None and any(fnmatchcase(key, pattern) for pattern in fresh):
            continue
        matched[key] = shape.numel()
        if given is None or given.shape != shape:
            has = "is missing" if given is None else f"has shape {tuple(given.shape)}, not {tuple(shape)}"
            raise ArtefactError(
                f"{where}: not a {trunk.options.name} of this width and size: {prefix + key} {has} "
                f"({fit(prefix)} of {len(wanted)} tensors match)."
            )
    filled = {key: tensors[prefix + key] for key in trunk.state_dict() if prefix + key in tensors}
    trunk.load_state_dict(filled, strict=False)
    share = sum(matched.values()) / sum(shape.numel() for shape in wanted.values())
    return (
        f"{len(matched)} of {len(wanted)} tensors ({100 * share:.3g} % of the numbers), prefix {prefix!r}, "
        f"{len(tensors) - len(filled)} left in the file"
    )


def _prefix(wanted: Iterable[str], tensors: dict[str, Tensor], fit: Callable[[str], int], where: Path | str) -> str:
    """What the names of the best matching tensors begin with."""
    prefixes = {
        name.removesuffix(key) for key in wanted for name in tensors if name == key or name.endswith("." + key)
    } or {""}
    best = max(map(fit, prefixes))
    alike = sorted(prefix for prefix in prefixes if fit(prefix) == best)
    published = [prefix for prefix in alike if any(name in prefix for name in _PUBLISHED)]
    if len(alike) > 1 and best and len(published) != 1:
        raise ArtefactError(
            f"{where}: holds this network {len(alike)} times, under {', '.join(map(repr, alike[:4]))}; "
            "say which by `prefix` of the task."
        )
    return published[0] if len(alike) > 1 and published else alike[0]


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
