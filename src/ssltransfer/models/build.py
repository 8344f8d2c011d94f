"""Trunks by name."""

from __future__ import annotations

from importlib import import_module

import torch

from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.models.trunk import Trunk

# Imported when asked for: torchvision, which the residual networks need, takes seconds at the start of a job.
_TRUNKS = {
    "caffenet": ("alexnets", "CaffeNet"),
    "alexnet": ("alexnets", "AlexNet"),
    "alexnet-bn": ("alexnets", "AlexNetBN"),
    "alexnet-big": ("alexnets", "AlexNetBig"),
    "vgg16": ("vggs", "Vgg16"),
    "vgg19-bn": ("vggs", "Vgg19BN"),
    "resnet18": ("resnets", "ResNet"),
    "resnet50": ("resnets", "ResNet"),
    "resnet50-v2": ("resnets_v2", "ResNetV2"),
    "resnet101-v2": ("resnets_v2", "ResNetV2"),
    "revnet50": ("revnets", "RevNet"),
    "mobilenet-v2": ("mobilenets", "MobileNetV2"),
    "torchvision": ("libraries", "Torchvision"),
    "timm": ("libraries", "Timm"),
    "hog-words": ("hog_words", "HogWords"),
}


def build_trunk(options: TrunkOptions, *, top: bool, seed: int = 0, dropout: float = 0.5) -> Trunk:
    """A trunk with fresh weights that depend on the seed alone.

    Args:
        options: which one.
        top: with its fully-connected layers, if it has any.
        seed: of the weights.
        dropout: probability in the fully-connected layers.
    """
    module, name = _TRUNKS[options.name]
    kind = getattr(import_module(f"ssltransfer.models.{module}"), name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk: Trunk = kind(options, top=top, dropout=dropout)
        trunk.settle()
    return trunk


def with_top(trunk: Trunk, *, seed: int, dropout: float = 0.5) -> Trunk:
    """Another trunk with the convolutions of this one and fresh fully-connected layers.

    Args:
        trunk: with or without fully-connected layers; of an architecture that has them.
        seed, dropout: as for `build_trunk`.
    """
    built = build_trunk(trunk.options, top=True, seed=seed, dropout=dropout)
    given = trunk.state_dict()
    names = build_trunk(trunk.options, top=False).state_dict().keys()
    built.load_state_dict({name: given[name] for name in names}, strict=False)
    return built


def rebuild(trunk: Trunk, *, top: bool | None = None, output_stride: int | None = None) -> Trunk:
    """The weights of a trunk in another one of its kind, in evaluation mode and frozen.

    Args:
        trunk: whose weights are copied.
        top: with its fully-connected layers; default: as it is.
        output_stride: of trunks that have such an option; the others keep the strides that they have.
    """
    options = trunk.options
    if output_stride is not None and "output_stride" in type(options).model_fields:
        options = options.model_copy(update={"output_stride": output_stride})
    other = build_trunk(options, top=trunk.layers == trunk.options.layers if top is None else top)
    weights = trunk.state_dict()
    other.load_state_dict({name: weights[name] for name in other.state_dict()})
    return other.to(next(iter(weights.values())).device).eval().requires_grad_(False)


def build_tile_trunk(options: TrunkOptions, *, seed: int, stem_stride: int | None = None) -> Trunk:
    """The convolutions for small tiles: the same tensors, finer strides.

    Noroozi & Favaro 2016: conv1 stride 2. Kolesnikov et al. 2019: no stride in the stem nor in the last block. What is
    exported later is the trunk with its own strides: the tensors fit, those of the tiles stay behind.

    Args:
        options: of the trunk that is exported.
        seed: as for `build_trunk`.
        stem_stride: given instead of the published one.
    """
    given = {"stem_stride": stem_stride} if stem_stride else {}
    return build_trunk(options.model_copy(update={**options.tile, **given}), top=False, seed=seed)
