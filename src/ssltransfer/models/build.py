"""Build backbones from their options."""

import torch

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.models.backbone import BACKBONES, Backbone


def build_backbone(options: BackboneOptions, *, include_top: bool, seed: int = 0, dropout: float = 0.5) -> Backbone:
    """A backbone with random weights, which are a function of the options and the seed.

    `include_top`: with its fully-connected layers, if it has any, and this dropout probability in them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = BACKBONES[type(options)](options, include_top=include_top, dropout=dropout)
        backbone.reset_parameters()
    return backbone


def with_top(backbone: Backbone, *, seed: int, dropout: float = 0.5) -> Backbone:
    """A copy with new fully-connected layers, for an architecture that has them; `backbone` itself may lack them."""
    built = build_backbone(backbone.options, include_top=True, seed=seed, dropout=dropout)
    given = backbone.state_dict()
    names = build_backbone(backbone.options, include_top=False).state_dict().keys()
    built.load_state_dict({name: given[name] for name in names}, strict=False)
    return built


def rebuild(backbone: Backbone, *, include_top: bool | None = None, output_stride: int | None = None) -> Backbone:
    """A frozen copy in evaluation mode, without top layers or with another output stride.

    Backbones without the option `output_stride` keep their strides.
    """
    options = backbone.options
    if output_stride is not None and "output_stride" in type(options).model_fields:
        options = options.model_copy(update={"output_stride": output_stride})
    other = build_backbone(options, include_top=backbone.include_top if include_top is None else include_top)
    weights = backbone.state_dict()
    other.load_state_dict({name: weights[name] for name in other.state_dict()})
    other.to(next(iter(weights.values())).device).to(memory_format=torch.channels_last)
    return other.eval().requires_grad_(False)
