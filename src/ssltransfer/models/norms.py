"""Batch norms as TensorFlow has them."""

from __future__ import annotations

from torch import nn

from ssltransfer.config.backbones.norms import BatchNormOptions
from ssltransfer.models.backbone import BATCH_NORMS

EPS = 1e-3


def apply_batch_norm_options(network: nn.Module, options: BatchNormOptions) -> None:
    """eps 1e-3 and the share of a batch in running statistics that the options say; in place (protocols 2.3b)."""
    for module in network.modules():
        if isinstance(module, BATCH_NORMS):
            module.eps, module.momentum = EPS, options.norm_momentum
