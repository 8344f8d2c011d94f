"""Batch norms as TensorFlow has them."""

from __future__ import annotations

from torch import nn

from ssltransfer.config.backbones.norms import TensorFlowNorms
from ssltransfer.models.backbone import BATCH_NORMS

EPS = 1e-3


def as_in_tensorflow(network: nn.Module, options: TensorFlowNorms) -> None:
    """eps 1e-3 and the share of a batch in running statistics that the options say; in place (protocols 2.3b)."""
    for module in network.modules():
        if isinstance(module, BATCH_NORMS):
            module.eps, module.momentum = EPS, options.norm_momentum
