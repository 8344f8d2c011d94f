"""Batch norms folded into the convolutions before them, as richzhang/colorization does it (protocols 4.1)."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def absorb_norms(network: nn.Module) -> int:
    """Fold each batch norm, with the statistics it keeps, into the convolution before it; in place.

    In evaluation mode the network computes what it did, up to rounding. The norms' places are taken by identities, so
    layers and their order stay; a CaffeNet with `bn` becomes a CaffeNet without local response normalisation, which
    no option of the trunk stands for. Convolutions keep or get a bias, which learns where their weights do.

    Args:
        network: in which every batch norm comes right after the convolution it normalises, also in the order of
            `named_modules`: all trunks.

    Returns:
        How many norms there were.
    """
    convolution: nn.Conv2d | None = None
    count = 0
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d):
            convolution = module
        elif isinstance(module, nn.BatchNorm2d):
            assert convolution is not None and module.running_mean is not None and module.running_var is not None
            learns = convolution.weight.requires_grad
            weight, bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                module.running_mean,
                module.running_var,
                module.eps,
                module.weight,
                module.bias,
            )
            convolution.weight, convolution.bias = weight.requires_grad_(learns), bias.requires_grad_(learns)
            network.set_submodule(name, nn.Identity())
            count += 1
    return count
