"""Batch norms folded into the layers before them, as richzhang/colorization does it (protocols 4.1)."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from ssltransfer.models.backbone import BATCH_NORMS, Backbone, LayerError


def fuse_conv_bn(network: nn.Module, *, linear_only: bool = False) -> int:
    """Fold each batch norm, with the statistics it keeps, into the layer with weights before it; in place.

    In evaluation mode the network computes what it did, up to rounding. The norms' places are taken by identities, so
    layers and their order stay; a CaffeNet with `bn` becomes a CaffeNet without local response normalization, which
    no option of the backbone stands for. Layers keep or get a bias, which learns where their weights do.

    Args:
        network: in which every batch norm comes right after the layer it normalizes, also in the order of
            `named_modules`: backbones that are `can_fuse_bn`.
        linear_only: the norms of fully-connected layers alone.

    Returns:
        How many norms there were.

    Raises:
        LayerError: the norms stand elsewhere.
    """
    if isinstance(network, Backbone) and not network.options.can_fuse_bn:
        raise LayerError(
            f"{network.options.name}: its batch norms do not come right after the layers with weights; "
            "leave `fuse_bn` out."
        )
    before: nn.Conv2d | nn.Linear | None = None
    count = 0
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            before = module
        elif isinstance(module, BATCH_NORMS) and not (linear_only and isinstance(before, nn.Conv2d)):
            assert before is not None and module.running_mean is not None and module.running_var is not None
            learns = before.weight.requires_grad
            fuse = fuse_conv_bn_weights if isinstance(before, nn.Conv2d) else fuse_linear_bn_weights
            weight, bias = fuse(
                before.weight,
                before.bias,
                module.running_mean,
                module.running_var,
                module.eps,
                module.weight,
                module.bias,
            )
            before.weight, before.bias = weight.requires_grad_(learns), bias.requires_grad_(learns)
            network.set_submodule(name, nn.Identity())
            count += 1
    return count
