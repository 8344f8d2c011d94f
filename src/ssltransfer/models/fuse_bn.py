"""Fuse batch norms into the layers before them, as in richzhang/colorization (protocols 4.1)."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from ssltransfer.models.backbone import BATCH_NORMS, Backbone, LayerError


def fuse_conv_bn(network: nn.Module, *, linear_only: bool = False) -> int:
    """Fuse each batch norm, with its running statistics, into the convolution or linear layer before it, in place.

    In evaluation mode the network computes the same function, up to rounding. Identities replace the norms, so that
    the layers keep their names. A CaffeNet with `bn` becomes one without local response normalization, for which the
    backbone has no option. Every fused layer has a bias, which requires gradients if the weights do.

    Args:
        network: every batch norm directly follows the layer that it normalizes, also in `named_modules`; backbones
            with `can_fuse_bn`.
        linear_only: only the norms of fully-connected layers.

    Returns:
        The number of norms.

    Raises:
        LayerError: the backbone does not support it.
    """
    if isinstance(network, Backbone) and not network.options.can_fuse_bn:
        raise LayerError(
            f"{network.options.name}: its batch norms do not directly follow the layers with weights; remove `fuse_bn`."
        )
    before: nn.Conv2d | nn.Linear | None = None
    count = 0
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            before = module
        elif isinstance(module, BATCH_NORMS) and not (linear_only and isinstance(before, nn.Conv2d)):
            assert before is not None and module.running_mean is not None and module.running_var is not None
            requires_grad = before.weight.requires_grad
            fuse = fuse_conv_bn_weights if isinstance(before, nn.Conv2d) else fuse_linear_bn_weights
            statistics = module.running_mean, module.running_var, module.eps
            weight, bias = fuse(before.weight, before.bias, *statistics, module.weight, module.bias)
            before.weight, before.bias = weight.requires_grad_(requires_grad), bias.requires_grad_(requires_grad)
            network.set_submodule(name, nn.Identity())
            count += 1
    return count
