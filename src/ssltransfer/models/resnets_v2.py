"""Residual networks v2, whose norms and ReLUs stand before the convolutions: ResNet-50 and ResNet-101."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssltransfer.config.backbones import ResNetV2 as Options
from ssltransfer.config.backbones.norms import BatchNormOptions
from ssltransfer.models.backbone import Backbone, ZeroPaddedMaxPool, scaled
from ssltransfer.models.norms import apply_batch_norm_options


class ResNetV2(Backbone):
    """He et al. 2016 (identity mappings in deep residual networks); protocols 2.3b and 2.5.

    Layers: conv1, the bare convolution before pooling, which nothing normalizes; block1, block2, block3 (and block4),
    the sums of the residual branches after batch norm and ReLU: what the next block reads, or, after the last block,
    the norm with which such a network ends; pool, the global average of the last block, a vector; representation, a
    linear function of that, if it was asked for. Without `last_relu` the last block ends with the norm.

    At output stride 8 block3 has no stride, and all its 3x3 convolutions but the first reach twice as far, so that its
    map has the values of stride 16 at every second place. block4 halves the map in any case.
    """

    def __init__(self, options: Options, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, include_top=include_top)
        channels = scaled(64, options.width_mult)
        self.conv1 = nn.Conv2d(3, channels, 7, stride=options.stem_stride or 2, padding=3, bias=False)
        tensorflow = isinstance(options, BatchNormOptions)
        self.maxpool = (ZeroPaddedMaxPool if tensorflow else nn.MaxPool2d)(3, 2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.norm0 = nn.BatchNorm2d(channels)
        reach = 1
        for number, depth in enumerate(options.depths[: 4 if options.block4 else 3], 1):
            dense = number == 3 and options.output_stride == 8
            stride = 1 if dense else (1, 2, 2, options.block4_stride)[number - 1]
            planes = scaled(64 * 2 ** (number - 1), options.width_mult)
            # What the first unit of the block reads has not been thinned out by a stride of the block yet.
            first = Unit(channels, planes, stride=stride, dilation=reach, first=True)
            reach *= 2 if dense else 1
            channels = 4 * planes
            others = (Unit(channels, planes, dilation=reach) for _ in range(depth - 1))
            self.add_module(f"block{number}", nn.Sequential(first, *others))
            self.add_module(f"norm{number}", nn.BatchNorm2d(channels))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        if options.embed_dim:
            self.representation = nn.Linear(channels, options.embed_dim)
        if isinstance(options, BatchNormOptions):
            apply_batch_norm_options(self, options)
        self._ends_bare = () if options.last_relu else (options.spatial_layers[-1],)

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """From the layer before to this one."""
        if layer == "conv1":
            return self.conv1(x)
        if layer == "pool":
            return self.avgpool(x).flatten(1)
        if layer == "representation":
            return self.representation(x)
        if layer == "block1":
            x = self.relu(self.norm0(self.maxpool(x)))
        x = self.get_submodule(f"norm{layer[-1]}")(self.get_submodule(layer)(x))
        return x if layer in self._ends_bare else self.relu(x)

    @property
    def units(self) -> nn.Sequential:
        """The units of block3."""
        block = self.get_submodule("block3")
        assert isinstance(block, nn.Sequential)
        return block

    def units_of(self, x: Tensor) -> list[Tensor]:
        """What each unit of block3 makes of block2's map (B, C, H, W): the raw sums."""
        found = []
        for unit in self.units:
            x = unit(x)
            found.append(x)
        return found

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Kaiming's weights, and each residual branch begins smaller by the root of their number.

        Before any statistics are learned a norm changes nothing, and every unit would double the variance: 30 of them
        give a random network values in the ten thousands, which no head learns from and float16 does not hold.
        """
        super().reset_parameters()
        units = [module for module in self.modules() if isinstance(module, Unit)]
        for unit in units:
            last = unit.branch[-1]
            assert isinstance(last, nn.Conv2d)
            last.weight *= len(units) ** -0.5


class Unit(nn.Module):
    """A bottleneck: 1x1, 3x3 and 1x1 convolutions, norm and ReLU before each, and the sum with what came in.

    The first unit of a block is given its input after norm and ReLU, and adds a projection of that.

    Args:
        channels: of the input.
        planes: of the 3x3 convolution; the output has four times as many, unless `out` says otherwise.
        stride, dilation: of the 3x3 convolution.
        first: of its block.
        out: channels of the output, of a first unit.
    """

    def __init__(
        self,
        channels: int,
        planes: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        first: bool = False,
        out: int | None = None,
    ):
        super().__init__()
        out = out or 4 * planes
        self.before = None if first else nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.shortcut = nn.Conv2d(channels, out, 1, stride=stride, bias=False) if first else None
        self.branch = nn.Sequential(
            nn.Conv2d(channels, planes, 1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            nn.Conv2d(planes, planes, 3, stride=stride, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            nn.Conv2d(planes, out, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """float (B, channels, H, W) -> (B, out, H / stride, W / stride)."""
        if self.shortcut is not None:
            return self.shortcut(x) + self.branch(x)
        assert self.before is not None
        total: Tensor = x + self.branch(self.before(x))
        return total
