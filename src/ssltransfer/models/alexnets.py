"""AlexNets, which must not be mixed: CaffeNet, torchvision's, DeepCluster's and RotNet's."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from torch import Tensor, nn

from ssltransfer.config.backbones import AlexNetBN as AlexNetBNOptions
from ssltransfer.config.backbones import AlexNetDeepCluster as AlexNetDeepClusterOptions
from ssltransfer.config.backbones import CaffeNet as CaffeNetOptions
from ssltransfer.config.backbones.alexnets import AlexNetOptions
from ssltransfer.models.backbone import Backbone, scaled
from ssltransfer.models.sobel import Sobel

_CAFFENET_STEPS = {
    "conv1": ("conv1", "bn1", "relu1"),
    "conv2": ("pool1", "norm1", "conv2", "bn2", "relu2"),
    "conv3": ("pool2", "norm2", "conv3", "bn3", "relu3"),
    "conv4": ("conv4", "bn4", "relu4"),
    "conv5": ("conv5", "bn5", "relu5"),
    "fc6": ("pool5", "flatten", "fc6", "relu6"),
    "fc7": ("drop6", "fc7", "relu7"),
}


class CaffeNet(Backbone):
    """bvlc_reference_caffenet up to fc7: convolution, ReLU, pooling, then LRN; two groups; ceil-mode pooling.

    Layers are after their ReLU, before pooling. Input 227: 55, 27, 13, 13, 13 pixels a side. fc7 is followed by
    dropout in the classifier, not here. With `bn`, each convolution is normalized over the batch and LRN is left out.
    """

    def __init__(self, options: CaffeNetOptions, *, include_top: bool = True, dropout: float = 0.5):
        super().__init__(options, include_top=include_top)
        c1, c2, c3, c4, c5 = (scaled(c, options.width_mult) for c in (96, 256, 384, 384, 256))
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(3, c1, 11, stride=options.stem_stride or 4),
            relu1=nn.ReLU(inplace=True),
            pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
            norm1=nn.LocalResponseNorm(5, 1e-4, 0.75),
            conv2=nn.Conv2d(c1, c2, 5, padding=2, groups=2),
            relu2=nn.ReLU(inplace=True),
            pool2=nn.MaxPool2d(3, 2, ceil_mode=True),
            norm2=nn.LocalResponseNorm(5, 1e-4, 0.75),
            conv3=nn.Conv2d(c2, c3, 3, padding=1),
            relu3=nn.ReLU(inplace=True),
            conv4=nn.Conv2d(c3, c4, 3, padding=1, groups=2),
            relu4=nn.ReLU(inplace=True),
            conv5=nn.Conv2d(c4, c5, 3, padding=1, groups=2),
            relu5=nn.ReLU(inplace=True),
            pool5=nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        if include_top:
            hidden = scaled(4096, options.width_mult)
            side = _caffenet_side(options.img_size, options.stem_stride or 4)
            parts.update(
                flatten=nn.Flatten(),
                fc6=nn.Linear(c5 * side * side, hidden),
                relu6=nn.ReLU(inplace=True),
                drop6=nn.Dropout(dropout),
                fc7=nn.Linear(hidden, hidden),
                relu7=nn.ReLU(inplace=True),
            )
        for name, part in parts.items():
            if not (options.bn and name.startswith("norm")):
                self.add_module(name, part)
            if options.bn and name.startswith("conv"):
                self.add_module(f"bn{name[-1]}", nn.BatchNorm2d(part.out_channels))  # type: ignore[arg-type]

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """From the layer before to this one."""
        for part in _CAFFENET_STEPS[layer]:
            if part in self._modules:
                x = self.get_submodule(part)(x)
        return x


def _caffenet_side(size: int, stem_stride: int) -> int:
    """Side of pool5 for an input of `size`: 6 for 227."""
    side = (size - 11) // stem_stride + 1
    for _ in range(3):
        side = -(-(side - 3) // 2) + 1
    return side


class AlexNet(Backbone):
    """torchvision's AlexNet up to fc7, with torchvision's tensor names.

    Layers are after their ReLU; conv1..conv5 before pooling. Input 224: 55, 27, 13, 13, 13 pixels a side.
    """

    channels: ClassVar[tuple[int, ...]] = (64, 192, 384, 256, 256)
    normed: ClassVar[bool] = False

    def __init__(self, options: AlexNetOptions, *, include_top: bool = True, dropout: float = 0.5):
        super().__init__(options, include_top=include_top)
        parts: list[nn.Module] = []
        self._spans: dict[str, tuple[int, int]] = {}
        given = self.sees
        shapes = zip(options.base_layers, self.channels, ((11, 2), (5, 2), (3, 1), (3, 1), (3, 1)), strict=True)
        for layer, width, (kernel, padding) in shapes:
            start, channels = len(parts), scaled(width, options.width_mult)
            if layer in ("conv2", "conv3"):
                parts.append(nn.MaxPool2d(3, 2))
            stride = options.stem_stride or 4 if layer == "conv1" else 1
            parts.append(nn.Conv2d(given, channels, kernel, stride=stride, padding=padding))
            if self.normed:
                parts.append(nn.BatchNorm2d(channels))
            parts.append(nn.ReLU(inplace=True))
            self._spans[layer], given = (start, len(parts)), channels
        self.features = nn.Sequential(*parts, nn.MaxPool2d(3, 2))
        if include_top:
            hidden = scaled(4096, options.width_mult)
            self.avgpool = nn.AdaptiveAvgPool2d(6)
            self.classifier = nn.Sequential(
                nn.Dropout(dropout),
                nn.Linear(given * 36, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                nn.ReLU(inplace=True),
            )

    @property
    def sees(self) -> int:
        """Channels that conv1 is given."""
        return 3

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """From the layer before to this one."""
        if layer == "fc6":
            return self.classifier[:3](self.avgpool(self.features[-1](x)).flatten(1))
        if layer == "fc7":
            return self.classifier[3:](x)
        start, stop = self._spans[layer]
        return self.features[start:stop](x)


class AlexNetDeepCluster(AlexNet):
    """DeepCluster's AlexNet, with its tensor names; protocols 2.1d. Images of 224: 55, 27, 13, 13, 13 a side.

    With `sobel` conv1 sees the horizontal and the vertical gradient of the mean of the channels.
    """

    channels = (96, 256, 384, 384, 256)
    normed = True
    options: AlexNetDeepClusterOptions

    def __init__(self, options: AlexNetDeepClusterOptions, *, include_top: bool = True, dropout: float = 0.5):
        super().__init__(options, include_top=include_top, dropout=dropout)
        self.gradients = Sobel() if options.sobel else nn.Identity()

    @property
    def sees(self) -> int:
        """Two gradients or three colors."""
        return 2 if self.options.sobel else 3

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """From the layer before to this one."""
        return super().forward_layer(layer, self.gradients(x) if layer == "conv1" else x)


class AlexNetBN(Backbone):
    """RotNet's AlexNet up to fc7, with its tensor names; protocols 2.1c.

    torchvision's channels, batch norm between every layer and its ReLU, fully-connected layers without bias and
    without dropout. Layers are after their ReLU; conv1..conv5 before pooling.
    """

    _CONVOLUTIONS = {"conv1": (0, 1), "conv2": (1, 3), "conv3": (3, 5), "conv4": (5, 6), "conv5": (6, 7)}

    def __init__(self, options: AlexNetBNOptions, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, include_top=include_top)
        c1, c2, c3, c4, c5 = (scaled(c, options.width_mult) for c in AlexNet.channels)
        blocks: list[nn.Module] = [
            _normed(nn.Conv2d(3, c1, 11, stride=options.stem_stride or 4, padding=2)),
            nn.MaxPool2d(3, 2),
            _normed(nn.Conv2d(c1, c2, 5, padding=2)),
            nn.MaxPool2d(3, 2),
            _normed(nn.Conv2d(c2, c3, 3, padding=1)),
            _normed(nn.Conv2d(c3, c4, 3, padding=1)),
            _normed(nn.Conv2d(c4, c5, 3, padding=1)),
            nn.MaxPool2d(3, 2),
        ]
        if include_top:
            hidden = scaled(4096, options.width_mult)
            # Of a map of 6x6, which images of 224 have, the average is the map.
            self.avgpool = nn.AdaptiveAvgPool2d(6)
            fc6 = (nn.Linear(c5 * 36, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True))
            fc7 = (nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True))
            blocks.append(nn.Sequential(nn.Flatten(), *fc6, *fc7))
        self._feature_blocks = nn.ModuleList(blocks)

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """From the layer before to this one."""
        if layer == "fc6":
            return self.get_submodule("_feature_blocks.8")[:4](self.avgpool(self._feature_blocks[7](x)))  # type: ignore[index]
        if layer == "fc7":
            return self.get_submodule("_feature_blocks.8")[4:](x)  # type: ignore[index]
        for block in self._feature_blocks[slice(*self._CONVOLUTIONS[layer])]:
            x = block(x)
        return x


def _normed(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))
