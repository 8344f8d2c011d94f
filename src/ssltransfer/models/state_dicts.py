"""State dicts: read files without running code in them, and load them into a backbone."""

import argparse
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.checkpoint_formats import at_size

_PUBLISHED = ("encoder_q.", "base_encoder.", "teacher.")  # the published one of two networks in a file
_COUNTER = "num_batches_tracked"
# Checkpoints of CompRess, DINO and timm also contain their options, which are plain values.
_HARMLESS: list[Any] = [argparse.Namespace]


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
    try:
        # safetensors: the length of the JSON header (8 bytes, little endian), then the header.
        if start[4:9] == b"\0\0\0\0{":
            return safetensors.torch.load_file(file)
        tensors = dict(_flat(_unpickled(file, start)))
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


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts, named by its path: `teacher.backbone.conv1.weight`."""
    if isinstance(content, dict):
        for name, value in content.items():
            if name == "optimizer" and not prefix:
                continue
            # Names of containers are not part of the tensors' names.
            inner = prefix if name in ("state_dict", "model", "model_state_dict") and not prefix else f"{prefix}{name}."
            # DataParallel inside a network, as in DeepCluster's features.module.0.weight.
            inner = inner.replace(".module.", ".")
            yield from _flat(value, inner)
    elif isinstance(content, Tensor):
        yield prefix.removesuffix("."), content


def load_tensors(
    backbone: Backbone,
    tensors: dict[str, Tensor],
    where: Path | str,
    *,
    prefix: str | None = None,
    fresh: Sequence[str] = (),
) -> str:
    """Load tensors into a backbone. All of its tensors must be present with their shapes, except those in `fresh`.

    Prefixes such as `module.encoder_q.` are detected by the best match, and other tensors (a head) are ignored. If a
    file has two networks, the one that its authors publish is loaded: MoCo's query encoder (base encoder in its third
    version), DINO's teacher. Counters of batch norms may be missing. Position embeddings for another number of patches
    are resampled.

    Args:
        where: the file, for messages.
        prefix: instead of detecting it.
        fresh: patterns of the backbone's tensors that may be missing, such as `classifier.*`.

    Returns:
        One line: the number of matched tensors and parameters, the prefix, and the number of ignored tensors.

    Raises:
        ArtifactError: a tensor is missing, has another shape or is not finite, or several prefixes match equally.
    """
    wanted = {key: value.shape for key, value in backbone.state_dict().items() if not key.endswith(_COUNTER)}

    def fit(prefix: str) -> int:
        return sum(prefix + key in tensors and tensors[prefix + key].shape == wanted[key] for key in wanted)

    found = _prefix(wanted, tensors, fit, where) if prefix is None else prefix
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
            raise ArtifactError(
                f"{where}: does not match the backbone {backbone.options.slug}: {found + key} {has} "
                f"({fit(found)} of {len(wanted)} tensors match{_hint(key, given, tensors, fit(found), prefix)})."
            )
        if not bool(given.isfinite().all()):
            raise ArtifactError(f"{where}: {found + key} has values that are not finite; its training failed.")
    backbone.load_state_dict(filled, strict=False)
    matched = [shape.numel() for key, shape in wanted.items() if key in filled]
    share = sum(matched) / sum(shape.numel() for shape in wanted.values())
    return (
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


def _prefix(wanted: Iterable[str], tensors: dict[str, Tensor], fit: Callable[[str], int], where: Path | str) -> str:
    """The prefix of the best matching tensors."""
    prefixes = {name.removesuffix(key) for key in wanted for name in tensors if _names(name, key)} or {""}
    best = max(map(fit, prefixes))
    alike = sorted(prefix for prefix in prefixes if fit(prefix) == best)
    published = [prefix for prefix in alike if any(name in prefix for name in _PUBLISHED)]
    if len(alike) > 1 and best and len(published) != 1:
        raise ArtifactError(
            f"{where}: this network occurs {len(alike)} times, under {', '.join(map(repr, alike[:4]))}; "
            "select one by `prefix` of the task."
        )
    return published[0] if len(alike) > 1 and published else alike[0]
