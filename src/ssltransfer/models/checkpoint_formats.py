"""Published files that hold a network under other names than its library's, or for images of another size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = dict[str, Tensor]


def renamed(tensors: Tensors, wanted: Iterable[str]) -> Tensors:
    """Tensors under a backbone's names, if a layout known here explains more of those than the file's own names do.

    Args:
        tensors: of a file, with any prefix.
        wanted: names of the backbone's tensors.
    """
    keys = set(wanted)
    # max returns the first of equals: what needs no rule is left as it is.
    return max((tensors, *(rule(tensors) for rule in _RULES)), key=lambda these: len(keys & endings(these)))


def endings(names: Iterable[str]) -> set[str]:
    """Every name with 0, 1, 2, ... parts taken off its front: what it could be called without a prefix."""
    return {name.split(".", dropped)[-1] for name in names for dropped in range(name.count(".") + 1)}


def _by(patterns: dict[str, str]) -> Callable[[Tensors], Tensors]:
    """A rule that replaces whole parts of names."""
    compiled = [(re.compile(rf"(?:(?<=\.)|^){pattern}(?=\.|$)"), new) for pattern, new in patterns.items()]

    def rule(tensors: Tensors) -> Tensors:
        found = {}
        for name, value in tensors.items():
            for pattern, new in compiled:
                name = pattern.sub(new, name)
            found[name] = value
        return found

    return rule


def _numbered(depths: tuple[int, ...]) -> dict[str, str]:
    """TensorFlow's names of a residual network's layers, counted as they were made: a shortcut before its unit."""
    places = [("conv1", "bn1")]
    for block, depth in enumerate(depths, 1):
        for unit in range(depth):
            above = f"layer{block}.{unit}."
            if unit == 0:
                places.append((f"{above}downsample.0", f"{above}downsample.1"))
            places += [(f"{above}conv{n}", f"{above}bn{n}") for n in (1, 2, 3)]
    numbers = [f"_{n}" if n else "" for n in range(len(places))]
    kinds = ("conv2d", "batch_normalization")
    return {kind + n: place[k] for n, place in zip(numbers, places, strict=True) for k, kind in enumerate(kinds)}


def _dinov2(tensors: Tensors) -> Tensors:
    """DINOv2 in timm's names; with registers the class token comes with its position added, as timm has it."""
    found = _by({"register_tokens": "reg_token", r"mlp\.w12": "mlp.fc1", r"mlp\.w3": "mlp.fc2"})(tensors)
    for name in [name.removesuffix("reg_token") for name in found if name.endswith("reg_token")]:
        cls_token, positions = found.get(f"{name}cls_token"), found.get(f"{name}pos_embed")
        if cls_token is not None and positions is not None:
            found[f"{name}cls_token"] = cls_token + positions[:, :1]
            found[f"{name}pos_embed"] = positions[:, 1:]
    return found


_RULES: tuple[Callable[[Tensors], Tensors], ...] = (
    # CompRess's AlexNet, without dropout.
    _by({r"feats\.0": "classifier.1", r"feats\.2": "classifier.4"}),
    # CompRess's SimCLR of any width.
    _by(_numbered((3, 4, 6, 3))),
    _dinov2,
)


def at_size(name: str, given: Tensor, shape: torch.Size) -> Tensor | None:
    """Position embeddings for another number of patches a side, resampled as timm does it; None for anything else.

    Args:
        name: of the tensor: `pos_embed` (timm, DINO), `encoder.pos_embedding` (torchvision).
        given: float (1, N, D), for a square of patches and perhaps a class token before them.
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
