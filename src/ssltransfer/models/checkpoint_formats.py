"""Conversion of published checkpoints: tensor names of other code, position embeddings for another image size."""

import re
from collections.abc import Callable, Iterable, Sequence
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError

Tensors = dict[str, Tensor]


def rename(tensors: Tensors, rules: Sequence[tuple[str, str]], where: object) -> Tensors:
    """Rename tensors by regular expressions and replacements, one after the other; others keep their names.

    Raises:
        ArtifactError: an expression matches no name, or two tensors get the same name. `where` begins the message.
    """
    old = dict(zip(tensors, tensors, strict=True))  # new name -> name in the file
    for pattern, replacement in rules:
        if not any(re.search(pattern, name) for name in old):
            listed = ", ".join(sorted(old)[:3])
            raise ArtifactError(f"{where}: `rename`: {pattern!r} matches no tensor; the file has {listed}, ...")
        changed: dict[str, str] = {}
        for name, original in old.items():
            new = re.sub(pattern, replacement, name)
            if new in changed:
                raise ArtifactError(
                    f"{where}: `rename`: {pattern!r} gives both {changed[new]} and {original} the name {new}; make it "
                    "more specific."
                )
            changed[new] = original
        old = changed
    return {name: tensors[original] for name, original in old.items()}


def renamed(tensors: Tensors, wanted: Iterable[str]) -> Tensors:
    """Rename tensors, with any prefix, by the format that yields most of the `wanted` names; unchanged if none does."""
    keys = set(wanted)
    # max returns the first of equals, here the unchanged tensors.
    candidates = (tensors, *(convert(tensors) for convert in _FORMATS))
    return max(candidates, key=lambda candidate: len(keys & endings(candidate)))


def endings(names: Iterable[str]) -> set[str]:
    """Every name without its first 0, 1, 2, ... parts: all names after removing a prefix."""
    return {name.split(".", dropped)[-1] for name in names for dropped in range(name.count(".") + 1)}


def _by(patterns: dict[str, str]) -> Callable[[Tensors], Tensors]:
    """A conversion that replaces whole parts of names by regular expressions."""
    compiled = [(re.compile(rf"(?:(?<=\.)|^){pattern}(?=\.|$)"), new) for pattern, new in patterns.items()]

    def convert(tensors: Tensors) -> Tensors:
        renamed = {}
        for name, value in tensors.items():
            for pattern, new in compiled:
                name = pattern.sub(new, name)
            renamed[name] = value
        return renamed if len(renamed) == len(tensors) else dict(tensors)  # not this format if two names become one

    return convert


def _numbered(depths: tuple[int, ...]) -> dict[str, str]:
    """TensorFlow's names of a ResNet's layers, numbered in the order of creation: a shortcut before its unit."""
    layers = [("conv1", "bn1")]
    for block, depth in enumerate(depths, 1):
        for unit in range(depth):
            prefix = f"layer{block}.{unit}."
            if unit == 0:
                layers.append((f"{prefix}downsample.0", f"{prefix}downsample.1"))
            layers += [(f"{prefix}conv{n}", f"{prefix}bn{n}") for n in (1, 2, 3)]
    numbers = [f"_{n}" if n else "" for n in range(len(layers))]
    kinds = ("conv2d", "batch_normalization")
    return {kind + n: layer[k] for n, layer in zip(numbers, layers, strict=True) for k, kind in enumerate(kinds)}


def _dinov2(tensors: Tensors) -> Tensors:
    """DINOv2 with timm's names. With registers, timm adds the position embedding to the class token."""
    renamed = _by({"register_tokens": "reg_token", r"mlp\.w12": "mlp.fc1", r"mlp\.w3": "mlp.fc2"})(tensors)
    for name in [name.removesuffix("reg_token") for name in renamed if name.endswith("reg_token")]:
        cls_token, positions = renamed.get(f"{name}cls_token"), renamed.get(f"{name}pos_embed")
        if cls_token is not None and positions is not None:
            renamed[f"{name}cls_token"] = cls_token + positions[:, :1]
            renamed[f"{name}pos_embed"] = positions[:, 1:]
    return renamed


_FORMATS: tuple[Callable[[Tensors], Tensors], ...] = (
    # CompRess's AlexNet, without dropout.
    _by({r"feats\.0": "classifier.1", r"feats\.2": "classifier.4"}),
    # CompRess's SimCLR of any width.
    _by(_numbered((3, 4, 6, 3))),
    _dinov2,
)


def at_size(name: str, given: Tensor, shape: torch.Size) -> Tensor | None:
    """Position embeddings resampled for another number of patches, as in timm; None for other tensors.

    Args:
        name: of the tensor: `pos_embed` (timm, DINO), `encoder.pos_embedding` (torchvision).
        given: float (1, N, D), for a square of patches, with or without a class token before them.
        shape: (1, M, D).
    """
    if name.split(".")[-1] not in ("pos_embed", "pos_embedding") or given.ndim != 3 or len(shape) != 3:
        return None
    counts = given.shape[1], shape[1]
    for tokens in (0, 1):
        old, new = (isqrt(count - tokens) for count in counts)
        if (old**2 + tokens, new**2 + tokens) == counts and given.shape[2] == shape[2]:
            square = given[:, tokens:].float().unflatten(1, (old, old)).permute(0, 3, 1, 2)
            resampled = F.interpolate(square, size=(new, new), mode="bicubic", antialias=True)
            return torch.cat([given[:, :tokens], resampled.flatten(2).transpose(1, 2).to(given.dtype)], 1)
    return None
