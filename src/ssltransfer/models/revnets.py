"""RevNet-50, whose residual units can be inverted: the backward pass can recompute activations from outputs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.backbones import revnets as config
from ssltransfer.models.backbone import BACKBONES, Backbone, ZeroPaddedMaxPool, apply_batch_norm_options, scaled
from ssltransfer.models.resnets_v2 import scale_branches
from ssltransfer.models.reversible import Reversible


@BACKBONES.register(config.RevNet50)
class RevNet(Backbone):
    """Gomez et al. 2017, in the version of Kolesnikov et al. 2019 (section 3.1, released resnet.py; protocols 2.4).

    Layers: conv1 is the convolution before pooling, without norm. block1, block2 and block3 are both streams
    concatenated, without norm. block4 is the same after batch norm and (`last_relu`) ReLU. pool is the global average,
    a vector. representation, with `embed_dim`, is a linear function of pool.

    Between blocks the map is halved by 2x2 average pooling, and its channels are doubled by zeros, half on either side.
    """

    def __init__(self, options: config.RevNet50, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, include_top=include_top)
        channels = 4 * scaled(64, options.width_mult)
        self.conv1 = nn.Conv2d(3, channels, 7, stride=options.stem_stride or 2, padding=3, bias=False)
        self.maxpool = ZeroPaddedMaxPool(3, 2, padding=1)
        for number, depth in enumerate(options.depths, 1):
            if number > 1:
                stride = options.block4_stride if number == 4 else 2
                # At the end of an odd side the average is over fewer pixels.
                halve = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
                self.add_module(f"halve{number}", halve)
                channels *= 2
            units = [branch(channels // 2) for _ in range(depth)]
            self.add_module(f"block{number}", Reversible(units, grad_checkpointing=options.grad_checkpointing))
        self.norm = nn.BatchNorm2d(channels)
        self.last = nn.ReLU(inplace=True) if options.last_relu else nn.Identity()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        if options.embed_dim:
            self.representation = nn.Linear(channels, options.embed_dim)
        apply_batch_norm_options(self, options)

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """See `Backbone`."""
        if layer == "conv1":
            return self.conv1(x)
        if layer == "pool":
            return self.avgpool(x).flatten(1)
        if layer == "representation":
            return self.representation(x)
        if layer == "block1":
            x = self.maxpool(x)
        else:
            x = self.get_submodule(f"halve{layer[-1]}")(x)
            half = x.shape[1] // 2
            x = F.pad(x, (0, 0, 0, 0, half, half))
        x = self.get_submodule(layer)(x)
        return self.last(self.norm(x)) if layer == "block4" else x

    def reset_parameters(self) -> None:
        """Kaiming's weights with scaled residual branches, as in `ResNetV2`."""
        super().reset_parameters()
        blocks = [module for module in self.modules() if isinstance(module, Reversible)]
        scale_branches([branch for block in blocks for branch in block.branches()])


def branch(channels: int) -> nn.Sequential:
    """F: a pre-activation bottleneck with a quarter of the `channels` of one stream inside."""
    inner = channels // 4
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, inner, 1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        nn.Conv2d(inner, inner, 3, padding=1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        nn.Conv2d(inner, channels, 1, bias=False),
    )
