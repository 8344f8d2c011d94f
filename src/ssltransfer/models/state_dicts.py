"""State dicts: read files without running code in them, and load them into a backbone."""

import argparse
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone
from ssltransfer.models.checkpoint_formats import at_size
from ssltransfer.models.leftovers import tensors_inside

_PUBLISHED = ("encoder_q.", "base_encoder.", "teacher.")  # the published one of two networks in a file
_COUNTER = "num_batches_tracked"
_CONTAINERS = ("state_dict", "model", "model_state_dict")
# Checkpoints also contain options, paths and NumPy's scalars, which are plain values.
_HARMLESS: list[Any] = [
    *(argparse.Namespace, PosixPath, np.dtype, *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file or a pickle of plain values, by name. The suffix is ignored.

    Raises:
        ArtifactError: the file is missing, truncated, of another format, or a pickle with code.
    """
    if not file.is_file():
        raise ArtifactError(f"{file}: no such file.")
    with file.open("rb") as opened:
        start = opened.read(16)
    if not start:
        raise ArtifactError(f"{file}: empty file; download it again.")
    if start.startswith(b"version https:"):
        raise ArtifactError(f"{file}: a pointer of Git LFS, not the weights; run `git lfs pull` in its repository.")
    if file.suffix == ".onnx":
        raise ArtifactError(
            f"{file}: an ONNX program, whose weights have no names of layers; save the state_dict of the network that "
            "it was exported from with torch.save."
        )
    try:
        # safetensors: the length of the JSON header (8 bytes, little endian), then the header.
        if start[4:9] == b"\0\0\0\0{":
            return safetensors.torch.load_file(file)
        tensors = _flat(_unpickled(file, start))
    except ArtifactError:
        raise
    except (SafetensorError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ArtifactError(f"{file}: truncated or damaged ({_first_line(error)}); download it again.") from None
    if not tensors:
        raise ArtifactError(f"{file}: contains no tensors.")
    return tensors


def _unpickled(file: Path, start: bytes) -> Any:
    """Load a file of torch.save (zip archive or the older format)."""
    if start[:2] == b"PK":
        names = {Path(name).name for name in zipfile.ZipFile(file).namelist()}
        if any(name.endswith(".npy") for name in names):
            raise ArtifactError(
                f"{file}: arrays of NumPy; save them as tensors: torch.save({{name: torch.from_numpy(array) for name, "
                "array in numpy.load(file).items()}, 'weights.pth')."
            )
        if "archive_format" in names or "serialized_exported_program.json" in names:
            raise ArtifactError(
                f"{file}: a program of torch.export, not a state dict; save torch.export.load(file).state_dict with "
                "torch.save, or the network's own state_dict."
            )
        script = "constants.pkl" in names
        if script or "data.pkl" not in names:
            kind = "a TorchScript program" if script else f"an archive of {min(names, default='none')}"
            raise ArtifactError(f"{file}: {kind}, not a state dict; save the network's state_dict with torch.save.")
    elif start[:1] != b"\x80":
        raise ArtifactError(
            f"{file}: not a file of weights: it begins with {start!r}. Is it another file, such as a web page?"
        )
    try:
        with file.open("rb") as opened, warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
            warnings.simplefilter("ignore")
            return torch.load(opened, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, OSError):
        raise
    except Exception as error:  # pickle.UnpicklingError and others, if weights_only refuses the file
        match = re.search(r"GLOBAL ([\w.]+)", str(error))
        more = f" ({match[1]})" if match else ""
        raise ArtifactError(
            f"{file}: not opened: a pickle of more than tensors{more}, which could run code; if you trust its "
            "source, save only its state dict."
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _flat(content: Any) -> dict[str, Tensor]:
    """Every tensor in nested dicts, named by its path: `teacher.backbone.conv1.weight`.

    Containers (`state_dict`, `model`) and DataParallel inside a network (`features.module.0.weight` of DeepCluster) are
    not part of the names, unless two tensors had the same name then.
    """
    paths = list(_paths(content))
    for container, wrapper in ((_CONTAINERS, ".module."), ((), ".module."), ((), None)):
        names = [_name(path, container, wrapper) for path, _ in paths]
        if len(set(names)) == len(names):
            break
    return {name: tensor for name, (_, tensor) in zip(names, paths, strict=True)}


def _paths(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    if isinstance(content, dict):
        for name, value in content.items():
            if path or name != "optimizer":
                yield from _paths(value, (*path, str(name)))
    elif isinstance(content, Tensor):
        yield path, content


def _name(path: tuple[str, ...], containers: Sequence[str], wrapper: str | None) -> str:
    name = ".".join(path[1:] if len(path) > 1 and path[0] in containers else path)
    return name.replace(wrapper, ".") if wrapper else name


def load_tensors(backbone: Backbone, tensors: dict[str, Tensor], where: Path | str, **options: Any) -> str:
    """Load tensors into a backbone; arguments, errors and the returned line are those of `match_tensors`."""
    filled, matched = match_tensors(backbone, tensors, where, **options)
    backbone.load_state_dict(filled, strict=False)
    return matched


def match_tensors(
    backbone: Backbone,
    tensors: dict[str, Tensor],
    where: Path | str,
    *,
    prefix: str | None = None,
    fresh: Sequence[str] = (),
    unused: Sequence[str] = (),
) -> tuple[dict[str, Tensor], str]:
    """The tensors of a backbone in a file. All of them must be there with their shapes, except those in `fresh`.

    Prefixes such as `module.encoder_q.` are detected by the names. A head is ignored, but more tensors inside the
    network are an error, because the file is of another network then. If a file has two whole networks, the one that
    its authors publish is loaded: MoCo's query encoder (base encoder in its third version), DINO's teacher. Counters of
    batch norms may be missing. Position embeddings for another number of patches are resampled.

    Args:
        backbone: may be on the meta device.
        where: the file, for messages.
        prefix: instead of detecting it.
        fresh: patterns of the backbone's tensors that may be missing, such as `classifier.*`.
        unused: patterns of the file's tensors, without prefix, that may lie inside the network.

    Returns:
        The tensors under the backbone's names. One line: the number of matched tensors and parameters, the prefix, and
        the number of ignored tensors.

    Raises:
        ArtifactError: a tensor is missing, has another shape or is not finite, the file has more tensors inside the
            network, or several whole networks match.
    """
    wanted = {key: value.shape for key, value in backbone.state_dict().items() if not key.endswith(_COUNTER)}
    found = _prefix(wanted, tensors, fresh, where) if prefix is None else prefix
    filled = {key: tensors[found + key] for key in backbone.state_dict() if found + key in tensors}
    resampled = []
    for key, shape in wanted.items():
        given = filled.get(key)
        if given is None and any(fnmatchcase(key, pattern) for pattern in fresh):
            continue
        if given is not None and given.shape != shape and (other := at_size(key, given, shape)) is not None:
            filled[key] = given = other
            resampled.append(key)
        if given is None or given.shape != shape:
            has = "is missing" if given is None else f"has shape {tuple(given.shape)}, not {tuple(shape)}"
            fits = sum(found + name in tensors and tensors[found + name].shape == wanted[name] for name in wanted)
            if given is not None and (remedy := _other_width(backbone, found, tensors, key)):
                raise ArtifactError(f"{where}: {remedy}: {found + key} {has}.")
            raise ArtifactError(
                f"{where}: does not match the backbone {backbone.options.slug}: {found + key} {has} "
                f"({fits} of {len(wanted)} tensors match{_hint(key, given, tensors, fits, prefix)})."
            )
        if not bool(given.isfinite().all()):
            raise ArtifactError(f"{where}: {found + key} has values that are not finite; its training failed.")
    if inside := tensors_inside(backbone.state_dict(), tensors, found, unused):
        listed = ", ".join(inside[:3]) + (", ..." if len(inside) > 3 else "")
        raise ArtifactError(
            f"{where}: the file is of another network: the backbone {backbone.options.slug} has all its tensors there, "
            f"but not {listed} ({len(inside)} tensors inside the network); name the backbone that has them, or "
            "list them in `allow_unused` of the task."
        )
    matched = [shape.numel() for key, shape in wanted.items() if key in filled]
    share = sum(matched) / sum(shape.numel() for shape in wanted.values())
    return filled, (
        f"{len(matched)} of {len(wanted)} tensors ({100 * share:.3g} % of the numbers), prefix {found!r}, "
        f"{len(tensors) - len(filled)} left in the file{''.join(f', {key} resampled' for key in resampled)}"
    )


def _hint(key: str, given: Tensor | None, tensors: dict[str, Tensor], fits: int, prefix: str | None) -> str:
    """Advice on a file that does not fit."""
    if given is not None and given.ndim == 4 and given.shape[1] == 2:
        return "; its first layer has two input channels: set `sobel: true` of the backbone"
    if fits:
        return ""
    names = ", ".join(sorted(tensors)[:3])
    remedy = "; remove `prefix` so that it is detected" if prefix and any(_names(name, key) for name in tensors) else ""
    return f"; the file has {names}, ...{remedy}"


def _names(name: str, key: str) -> bool:
    """Whether a name is `key`, with or without a prefix."""
    return name == key or name.endswith("." + key)


def _fits(key: str, given: Tensor, shape: torch.Size) -> bool:
    """Whether a tensor can be loaded, perhaps resampled."""
    return given.shape == shape or at_size(key, given, shape) is not None


def _prefix(wanted: dict[str, torch.Size], tensors: dict[str, Tensor], fresh: Sequence[str], where: Path | str) -> str:
    """The prefix with the most names, and of those with the most shapes; of two whole networks the published one."""
    prefixes = {name.removesuffix(key) for key in wanted for name in tensors if _names(name, key)} or {""}

    def score(prefix: str) -> tuple[int, int]:
        present = [key for key in wanted if prefix + key in tensors]
        return len(present), sum(_fits(key, tensors[prefix + key], wanted[key]) for key in present)

    scores = {prefix: score(prefix) for prefix in prefixes}
    best = max(scores.values())
    alike = sorted(prefix for prefix in prefixes if scores[prefix] == best)
    published = [prefix for prefix in alike if any(name in prefix for name in _PUBLISHED)]
    if len(published) == 1 or len(alike) == 1:
        return (published or alike)[0]
    needed = [key for key in wanted if not any(fnmatchcase(key, pattern) for pattern in fresh)]
    if best[0] == best[1] and all(alike[0] + key in tensors for key in needed):
        raise ArtifactError(
            f"{where}: this network occurs {len(alike)} times, under {', '.join(map(repr, alike[:4]))}; "
            "select one by `prefix` of the task."
        )
    return alike[0]


def by_order(tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors of a file with other names under the `wanted` names; None unless all of them agree.

    Number, order, last part of the name (`weight`, `running_mean`) and shape must agree, for all tensors of the file or
    for those with a common prefix. A classifier after them is ignored. Of two networks the published one is used.
    """
    kinds = [(key.split(".")[-1], value.shape) for key, value in wanted.items() if not key.endswith(_COUNTER)]
    names = [name for name in tensors if not name.endswith(_COUNTER)]
    prefixes = {"", *(name[: match.end()] for name in names for match in re.finditer(r"\.", name))}
    matches: dict[tuple[str, ...], str] = {}
    for prefix in sorted(prefixes):
        group = [name for name in names if name.startswith(prefix)]
        head = [tensors[name].ndim for name in group[len(kinds) :]]
        group = group[: len(kinds)]
        if head in ([], [2], [2, 1]) and kinds == [(name.split(".")[-1], tensors[name].shape) for name in group]:
            matches[tuple(group)] = prefix
    found = list(matches)
    if len(found) > 1:
        found = [group for group in found if any(name in matches[group] for name in _PUBLISHED)]
    if len(found) != 1:
        return None
    keys = [key for key in wanted if not key.endswith(_COUNTER)]
    return {key: tensors[name] for key, name in zip(keys, found[0], strict=True)}


def _other_width(backbone: Backbone, prefix: str, tensors: dict[str, Tensor], key: str) -> str | None:
    """What to do with a file that has all names of the backbone with other shapes, of which `key` is the first."""
    options, state = backbone.options, backbone.state_dict()
    names = [name for name in state if not name.endswith(_COUNTER)]
    if not all(prefix + name in tensors for name in names):
        return None
    width = options.width_mult * tensors[prefix + key].shape[0] / state[key].shape[0]
    try:
        other = type(options).model_validate(options.model_dump() | {"width_mult": width})
        with torch.device("meta"):
            shapes = build_backbone(other, include_top=backbone.include_top).state_dict()
    except (ValueError, RuntimeError):
        return None
    if any(shapes[name].shape != tensors[prefix + name].shape for name in names):
        return None
    return f"has the names of {options.name} with other widths; use `width_mult: {width:g}` of the backbone"
