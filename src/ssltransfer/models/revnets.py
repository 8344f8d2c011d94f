"""RevNet-50, whose residual units can be inverted: the backward pass can recompute activations from outputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from ssltransfer.config.backbones import revnets as config
from ssltransfer.models.backbone import BACKBONES, Backbone, ZeroPaddedMaxPool, apply_batch_norm_options, scaled
from ssltransfer.models.resnets_v2 import scale_branches


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
        self.add_representation(channels)
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


class Reversible(nn.Sequential):
    """Units (x1, x2) -> (x2, x1 + F(x2)) on the two halves of the channels (Gomez et al. 2017; protocols 2.4).

    With `grad_checkpointing` the backward pass recovers each unit's input from its output, x1 = y2 - F(y1). Only the
    output of the last unit is stored, and F is computed once more for each unit. Statistics of batch
    norms are updated only in the forward pass. Under autocast the streams stay in float32, so that the same value
    is subtracted that was added. F must not be random.

    Args:
        branches: F of each unit, (B, C, H, W) -> the same shape.
        grad_checkpointing: see above; no effect without gradients.
    """

    def __init__(self, branches: Sequence[nn.Sequential], *, grad_checkpointing: bool = False):
        super().__init__(*branches)
        self.grad_checkpointing = grad_checkpointing

    def branches(self) -> list[nn.Sequential]:
        """F of each unit, in order."""
        return [part for part in self if isinstance(part, nn.Sequential)]

    def forward(self, x: Tensor) -> Tensor:
        """float (B, 2C, H, W) -> the same shape, at least float32."""
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        if self.grad_checkpointing and torch.is_grad_enabled():
            parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
            if parameters or x.requires_grad:
                y: Tensor = _Recomputed.apply(self, x, *parameters)
                return y
        return self.run(x)

    def run(self, x: Tensor) -> Tensor:
        """The units one after the other."""
        x1, x2 = x.chunk(2, dim=1)
        for branch in self.branches():
            x1, x2 = x2, x1 + branch(x2)
        return torch.cat([x1, x2], dim=1)

    @torch.no_grad()
    def inverse(self, y: Tensor) -> Tensor:
        """The input of `forward` for this output, up to rounding, if batch norms are in evaluation mode."""
        y1, y2 = y.chunk(2, dim=1)
        for branch in reversed(self.branches()):
            y1, y2 = y2 - branch(y1), y1
        return torch.cat([y1, y2], dim=1)


class _Recomputed(torch.autograd.Function):
    """`Reversible.run`, which stores only its output for the backward pass."""

    @staticmethod
    def forward(ctx: Any, block: Reversible, x: Tensor, *parameters: Tensor) -> Tensor:
        # The cache of autocast would return weights that were cast without a gradient.
        kind = x.device.type
        ctx.block, ctx.parameters = block, parameters
        ctx.autocast = {"enabled": torch.is_autocast_enabled(kind), "dtype": torch.get_autocast_dtype(kind)}
        with torch.autocast(kind, cache_enabled=False, **ctx.autocast):
            y = block.run(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        y1, y2 = y.chunk(2, dim=1)
        g1, g2 = gradient.chunk(2, dim=1)
        positions = {parameter: position for position, parameter in enumerate(ctx.parameters)}
        gradients: list[Tensor | None] = [None] * len(positions)
        for branch in reversed(ctx.block.branches()):
            own = [parameter for parameter in branch.parameters() if parameter in positions]
            x2 = y1.detach().requires_grad_()
            with (
                torch.enable_grad(),
                _frozen_statistics(branch),
                torch.autocast(y.device.type, cache_enabled=False, **ctx.autocast),
            ):
                added = branch(x2)
            g_x2, *g_own = torch.autograd.grad(added, [x2, *own], g2.to(added.dtype))
            for parameter, g in zip(own, g_own, strict=True):
                gradients[positions[parameter]] = g
            y1, y2 = y2 - added.detach(), y1
            g1, g2 = g2, g1 + g_x2
        return None, torch.cat([g1, g2], dim=1), *gradients


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms use batch statistics and do not update the running ones."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
