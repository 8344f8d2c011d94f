"""Trunks by name."""

from __future__ import annotations

from importlib import import_module

import torch

from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.models.trunk import Trunk, initialise

# Imported when asked for: torchvision, which the residual networks need, takes seconds at the start of a job.
_TRUNKS = {
    "caffenet": ("alexnets", "CaffeNet"),
    "alexnet": ("alexnets", "AlexNet"),
    "vgg16": ("vgg", "Vgg16"),
    "resnet18": ("resnets", "ResNet"),
    "resnet50": ("resnets", "ResNet"),
    "resnet101-v2": ("resnets_v2", "ResNetV2"),
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
        initialise(trunk)
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
    """The convolutions for small tiles: the same tensors, a finer stem (Noroozi & Favaro 2016: conv1 stride 2).

    What is exported later is the trunk with its own stem: the tensors fit, the tile stem stays behind.
    """
    stride = stem_stride or options.tile_stem_stride
    finer = {"stem_stride": stride} if stride else {}
    trunk = build_trunk(options.model_copy(update=finer), top=False, seed=seed)
    if options.name in ("resnet18", "resnet50"):
        # Kolesnikov et al. 2019: block strides 1, 2, 2, 1 on patches.
        for module in trunk.get_submodule("layer4")[0].modules():  # type: ignore[index]
            if isinstance(module, torch.nn.Conv2d) and module.stride == (2, 2):
                module.stride = (1, 1)
    return trunk
