"""Floating-point operations of backbones, from their shapes: no weights are allocated."""

from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.models.build import build_backbone


@lru_cache
def flops(backbone: BackboneOptions, *, include_top: bool = False, size: int | None = None) -> float:
    """Floating-point operations (two per multiply-add) of a forward pass on a square of `size`, default `img_size`."""
    size = size or backbone.img_size
    with torch.device("meta"):
        network = build_backbone(backbone, include_top=include_top)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.empty(1, 3, size, size, device="meta"))
    return float(counter.get_total_flops())
