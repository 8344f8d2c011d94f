"""RevNet-50: residual units that can be inverted, so that a backward pass need not keep their activations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.backbones import RevNet50
from ssltransfer.models.backbone import Backbone, ZeroPaddedMaxPool, scaled
from ssltransfer.models.norms import apply_batch_norm_options
from ssltransfer.models.reversible import Reversible


class RevNet(Backbone):
    """Gomez et al. 2017, as Kolesnikov et al. 2019 have it (section 3.1, released resnet.py; protocols 2.4).

    Layers: conv1, the bare convolution before pooling; block1, block2 and block3, both streams side by side as the next
    block reads them, which nothing normalizes; block4, the same after batch norm and (`last_relu`) ReLU, with which the
    network ends; pool, its global average, a vector; representation, a linear function of that, if it was asked for.

    Between blocks the map is halved by averages of 2x2 and gets as many channels again, zeros, half on either side.
    """

    def __init__(self, options: RevNet50, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, include_top=include_top)
        channels = 4 * scaled(64, options.width_mult)
        self.conv1 = nn.Conv2d(3, channels, 7, stride=options.stem_stride or 2, padding=3, bias=False)
        self.maxpool = ZeroPaddedMaxPool(3, 2, padding=1)
        for number, depth in enumerate(options.depths, 1):
            if number > 1:
                stride = options.block4_stride if number == 4 else 2
                # Of a side that is odd the last place is an average of what is there.
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
        """From the layer before to this one."""
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

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Kaiming's weights, and each residual branch begins smaller by the root of their number (`ResNetV2`)."""
        super().reset_parameters()
        blocks = [module for module in self.modules() if isinstance(module, Reversible)]
        lasts = [unit[-1] for block in blocks for unit in block.branches()]
        for last in lasts:
            assert isinstance(last, nn.Conv2d)
            last.weight *= len(lasts) ** -0.5


def branch(channels: int) -> nn.Sequential:
    """F: a bottleneck of a quarter of the channels, norm and ReLU before each of its three convolutions.

    Args:
        channels: of one stream.
    """
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
