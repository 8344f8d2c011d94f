"""Backbones by name."""

from __future__ import annotations

from importlib import import_module

import torch

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.models.backbone import Backbone

# Imported when asked for: torchvision, which the residual networks need, takes seconds at the start of a job.
_BACKBONES = {
    "caffenet": ("alexnets", "CaffeNet"),
    "alexnet": ("alexnets", "AlexNet"),
    "alexnet-bn": ("alexnets", "AlexNetBN"),
    "alexnet-deepcluster": ("alexnets", "AlexNetDeepCluster"),
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


def build_backbone(options: BackboneOptions, *, include_top: bool, seed: int = 0, dropout: float = 0.5) -> Backbone:
    """A backbone with fresh weights that depend on the seed alone.

    Args:
        options: which one.
        include_top: with its fully-connected layers, if it has any.
        seed: of the weights.
        dropout: probability in the fully-connected layers.
    """
    module, name = _BACKBONES[options.name]
    kind = getattr(import_module(f"ssltransfer.models.{module}"), name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone: Backbone = kind(options, include_top=include_top, dropout=dropout)
        backbone.reset_parameters()
    return backbone


def with_top(backbone: Backbone, *, seed: int, dropout: float = 0.5) -> Backbone:
    """Another backbone with the convolutions of this one and fresh fully-connected layers.

    Args:
        backbone: with or without fully-connected layers; of an architecture that has them.
        seed, dropout: as for `build_backbone`.
    """
    built = build_backbone(backbone.options, include_top=True, seed=seed, dropout=dropout)
    given = backbone.state_dict()
    names = build_backbone(backbone.options, include_top=False).state_dict().keys()
    built.load_state_dict({name: given[name] for name in names}, strict=False)
    return built


def rebuild(backbone: Backbone, *, include_top: bool | None = None, output_stride: int | None = None) -> Backbone:
    """The weights of a backbone in another one of its kind, in evaluation mode and frozen.

    Args:
        backbone: whose weights are copied.
        include_top: with its fully-connected layers; default: as it is.
        output_stride: of backbones that have such an option; the others keep the strides that they have.
    """
    options = backbone.options
    if output_stride is not None and "output_stride" in type(options).model_fields:
        options = options.model_copy(update={"output_stride": output_stride})
    other = build_backbone(
        options, include_top=backbone.layers == backbone.options.layers if include_top is None else include_top
    )
    weights = backbone.state_dict()
    other.load_state_dict({name: weights[name] for name in other.state_dict()})
    return other.to(next(iter(weights.values())).device).eval().requires_grad_(False)


def build_tile_backbone(options: BackboneOptions, *, seed: int, stem_stride: int | None = None) -> Backbone:
    """The convolutions for small tiles: the same tensors, finer strides.

    Noroozi & Favaro 2016: conv1 stride 2. Kolesnikov et al. 2019: no stride in the stem nor in the last block. What is
    exported later is the backbone with its own strides: the tensors fit, those of the tiles stay behind.

    Args:
        options: of the backbone that is exported.
        seed: as for `build_backbone`.
        stem_stride: given instead of the published one.
    """
    given = {"stem_stride": stem_stride} if stem_stride else {}
    return build_backbone(options.model_copy(update={**options.patch_overrides, **given}), include_top=False, seed=seed)
