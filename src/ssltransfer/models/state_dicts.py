"""Files of tensors, whoever wrote them: read without running anything, and put into a backbone so that it is proved."""

from __future__ import annotations

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

_PUBLISHED = ("encoder_q.", "base_encoder.", "teacher.")  # of networks that a file holds twice
_COUNTER = "num_batches_tracked"
# Beside the tensors training scripts (CompRess, DINO, timm) leave their options, which hold values and run nothing.
_HARMLESS: list[Any] = [argparse.Namespace]


def read_tensors(file: Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from a pickle that holds nothing but values; the content says which it is.

    Raises:
        ArtifactError: missing, cut off, not such a file, or a pickle that wants to run code.
    """
    if not file.is_file():
        raise ArtifactError(f"{file}: there is no such file of weights.")
    with file.open("rb") as opened:
        start = opened.read(16)
    if not start:
        raise ArtifactError(f"{file}: is empty; fetch it again.")
    try:
        # The length of a header of JSON (8 bytes, little endian), then the header.
        if start[4:9] == b"\0\0\0\0{":
            return safetensors.torch.load_file(file)
        tensors = dict(_flat(_unpickled(file, start)))
    except ArtifactError:
        raise
    except (SafetensorError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ArtifactError(f"{file}: cut off or damaged ({_first_line(error)}); fetch it again.") from None
    if not tensors:
        raise ArtifactError(f"{file}: holds no tensors.")
    return tensors


def _unpickled(file: Path, start: bytes) -> Any:
    """What torch.save wrote, in the form of an archive or in its older one.

    Raises:
        ArtifactError: neither of them, or it holds more than values.
    """
    if start[:2] == b"PK":
        names = {Path(name).name for name in zipfile.ZipFile(file).namelist()}
        if "data.pkl" not in names or "constants.pkl" in names:
            what = (
                "a TorchScript program" if "constants.pkl" in names else f"an archive of {min(names, default='none')}"
            )
            raise ArtifactError(f"{file}: {what}, not a state dict; save the network's state_dict with torch.save.")
    elif start[:1] != b"\x80":
        raise ArtifactError(
            f"{file}: not a file of weights: it begins with {start!r}. Was something else saved under its name?"
        )
    try:
        with file.open("rb") as opened, warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
            warnings.simplefilter("ignore")
            return torch.load(opened, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, OSError):
        raise
    except Exception as error:  # pickle.UnpicklingError and its kin: what weights_only refuses
        wants = re.search(r"GLOBAL ([\w.]+)", str(error))
        more = f" ({wants[1]})" if wants else ""
        raise ArtifactError(
            f"{file}: a pickle of more than tensors{more}, which could run code, and is not opened; where you trust "
            "its source, save its state dict alone."
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _flat(content: Any, above: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts, named by its path: `teacher.backbone.conv1.weight`."""
    if isinstance(content, dict):
        for name, value in content.items():
            if name == "optimizer" and not above:
                continue
            # Containers that say nothing about what is in them.
            inner = above if name in ("state_dict", "model", "model_state_dict") and not above else f"{above}{name}."
            # What DataParallel wrapped inside a network: DeepCluster's features.module.0.weight.
            inner = inner.replace(".module.", ".")
            yield from _flat(value, inner)
    elif isinstance(content, Tensor):
        yield above.removesuffix("."), content


def load_tensors(
    backbone: Backbone,
    tensors: dict[str, Tensor],
    where: Path | str,
    *,
    prefix: str | None = None,
    fresh: Sequence[str] = (),
) -> str:
    """Fill a backbone; every one of its tensors must be there in its shape, but for those that may stay fresh.

    Prefixes such as `module.encoder_q.` are found by the best match; what else the file holds (a head) is left. Where
    a file holds the network twice, the one is taken that its authors publish: MoCo's query encoder (base encoder in
    its third version), DINO's teacher. Counters of batch normalization may be missing. Position embeddings of
    another number of patches are resampled.

    Args:
        backbone: filled in place.
        tensors: by name.
        where: the file, for messages.
        prefix: given instead of found.
        fresh: patterns of the backbone's tensors that the file may lack, such as `classifier.*`.

    Returns:
        One line: how many tensors and parameters matched, under which prefix, and what was left.

    Raises:
        ArtifactError: a tensor is missing, has another shape or values that are no numbers, or several sets of
            tensors fit alike.
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
                f"{where}: does not fit the backbone {backbone.options.slug}: {found + key} {has} "
                f"({fit(found)} of {len(wanted)} tensors match{_hint(key, given, tensors, fit(found), prefix)})."
            )
        if not bool(given.isfinite().all()):
            raise ArtifactError(f"{where}: {found + key} holds values that are no numbers; its training went wrong.")
    backbone.load_state_dict(filled, strict=False)
    matched = [shape.numel() for key, shape in wanted.items() if key in filled]
    share = sum(matched) / sum(shape.numel() for shape in wanted.values())
    return (
        f"{len(matched)} of {len(wanted)} tensors ({100 * share:.3g} % of the numbers), prefix {found!r}, "
        f"{len(tensors) - len(filled)} left in the file{''.join(f', {key} resampled' for key in resampled)}"
    )


def _hint(key: str, given: Tensor | None, tensors: dict[str, Tensor], fits: int, prefix: str | None) -> str:
    """What a file that does not fit may be instead."""
    if given is not None and given.ndim == 4 and given.shape[1] == 2:
        return "; its first layer sees two gradients: say `sobel: true` of the backbone"
    if fits:
        return ""
    names = ", ".join(sorted(tensors)[:3])
    skipped = "; leave `prefix` out, and it is found" if prefix and any(map(key_ends(key), tensors)) else ""
    return f"; the file has {names}, ...{skipped}"


def key_ends(key: str) -> Callable[[str], bool]:
    """Whether a name is this one, with or without something before it."""
    return lambda name: name == key or name.endswith("." + key)


def _prefix(wanted: Iterable[str], tensors: dict[str, Tensor], fit: Callable[[str], int], where: Path | str) -> str:
    """What the names of the best matching tensors begin with."""
    prefixes = {name.removesuffix(key) for key in wanted for name in tensors if key_ends(key)(name)} or {""}
    best = max(map(fit, prefixes))
    alike = sorted(prefix for prefix in prefixes if fit(prefix) == best)
    published = [prefix for prefix in alike if any(name in prefix for name in _PUBLISHED)]
    if len(alike) > 1 and best and len(published) != 1:
        raise ArtifactError(
            f"{where}: holds this network {len(alike)} times, under {', '.join(map(repr, alike[:4]))}; "
            "say which by `prefix` of the task."
        )
    return published[0] if len(alike) > 1 and published else alike[0]
