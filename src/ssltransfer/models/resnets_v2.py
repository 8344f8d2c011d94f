"""Pre-activation residual networks: ResNet-50 v2 and ResNet-101 v2."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssltransfer.config.backbones import resnets_v2 as config
from ssltransfer.config.backbones.base import BatchNormOptions
from ssltransfer.models.backbone import BACKBONES, Backbone, ZeroPaddedMaxPool, apply_batch_norm_options, scaled


@BACKBONES.register(config.ResNet50V2, config.ResNet101V2)
class ResNetV2(Backbone):
    """He et al. 2016 (identity mappings in deep residual networks); protocols 2.3b and 2.5.

    Layers: conv1 is the convolution before pooling, without norm. block1, block2, block3 (and block4) are the sums of
    the residual branches after batch norm and ReLU, which are the input of the next block. pool is the global average
    of the last block, a vector. representation, with `embed_dim`, is a linear function of pool. Without `last_relu` the
    last block ends with the norm.

    At output stride 8, block3 has no stride and all its 3x3 convolutions but the first have dilation 2, so that every
    second value of its map is one of the map at stride 16. block4 halves the map in any case.
    """

    def __init__(self, options: config.ResNetV2, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, include_top=include_top)
        channels = scaled(64, options.width_mult)
        self.conv1 = nn.Conv2d(3, channels, 7, stride=options.stem_stride or 2, padding=3, bias=False)
        tensorflow = isinstance(options, BatchNormOptions)
        self.maxpool = (ZeroPaddedMaxPool if tensorflow else nn.MaxPool2d)(3, 2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.norm0 = nn.BatchNorm2d(channels)
        dilation = 1
        for number, depth in enumerate(options.depths[: 4 if options.block4 else 3], 1):
            dense = number == 3 and options.output_stride == 8
            stride = 1 if dense else (1, 2, 2, options.block4_stride)[number - 1]
            planes, residual = scaled(64 * 2 ** (number - 1), options.width_mult), options.shortcuts
            # The input of the block's first unit is not subsampled yet.
            first = Unit(channels, planes, stride=stride, dilation=dilation, first=True, residual=residual)
            dilation *= 2 if dense else 1
            channels = 4 * planes
            others = (Unit(channels, planes, dilation=dilation, residual=residual) for _ in range(depth - 1))
            self.add_module(f"block{number}", nn.Sequential(first, *others))
            self.add_module(f"norm{number}", nn.BatchNorm2d(channels))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.add_representation(channels)
        if isinstance(options, BatchNormOptions):
            apply_batch_norm_options(self, options)
        self._without_relu = () if options.last_relu else (options.spatial_layers[-1],)

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """See `Backbone`."""
        if layer == "conv1":
            return self.conv1(x)
        if layer == "pool":
            return self.avgpool(x).flatten(1)
        if layer == "representation":
            return self.representation(x)
        if layer == "block1":
            x = self.relu(self.norm0(self.maxpool(x)))
        x = self.get_submodule(f"norm{layer[-1]}")(self.get_submodule(layer)(x))
        return x if layer in self._without_relu else self.relu(x)

    @property
    def units(self) -> nn.Sequential:
        """The units of block3."""
        block = self.get_submodule("block3")
        assert isinstance(block, nn.Sequential)
        return block

    def units_of(self, x: Tensor) -> list[Tensor]:
        """Output of each unit of block3, the sum without norm and ReLU, from block2's map (B, C, H, W)."""
        outputs = []
        for unit in self.units:
            x = unit(x)
            outputs.append(x)
        return outputs

    def reset_parameters(self) -> None:
        """Kaiming's weights, but the last convolution of each of the n residual branches is scaled by 1 / sqrt(n).

        While running statistics have their initial values a norm changes nothing, and every unit would double the
        variance. With 30 units the features of a random network exceed 10,000, too large for heads and for float16.
        """
        super().reset_parameters()
        scale_branches([module.branch for module in self.modules() if isinstance(module, Unit) and module.residual])


@torch.no_grad()
def scale_branches(branches: Sequence[nn.Sequential]) -> None:
    """Multiply the last convolution of each of n residual branches by 1 / sqrt(n), in place."""
    for branch in branches:
        last = branch[-1]
        assert isinstance(last, nn.Conv2d)
        last.weight *= len(branches) ** -0.5


class Unit(nn.Module):
    """A pre-activation bottleneck: norm and ReLU before each of a 1x1, a 3x3 and a 1x1 convolution, plus a shortcut.

    The input of a block's first unit has been through norm and ReLU already. Its shortcut is a 1x1 convolution, and its
    output may have other than 4 * `planes` channels. Without `residual` there is no shortcut at all. The 3x3
    convolution has `planes` channels, stride and dilation.
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
        residual: bool = True,
    ):
        super().__init__()
        out = out or 4 * planes
        self.residual = residual
        self.before = None if first else nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.shortcut = nn.Conv2d(channels, out, 1, stride=stride, bias=False) if first and residual else None
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
        change: Tensor = self.branch(x if self.before is None else self.before(x))
        if not self.residual:
            return change
        return change + (x if self.shortcut is None else self.shortcut(x))
