"""The two AlexNets that must not be mixed: CaffeNet and torchvision's."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from ssltransfer.config.trunks import AlexNet as AlexNetOptions
from ssltransfer.config.trunks import CaffeNet as CaffeNetOptions
from ssltransfer.models.trunk import Trunk, scaled

_CAFFENET_STEPS = {
    "conv1": ("conv1", "bn1", "relu1"),
    "conv2": ("pool1", "norm1", "conv2", "bn2", "relu2"),
    "conv3": ("pool2", "norm2", "conv3", "bn3", "relu3"),
    "conv4": ("conv4", "bn4", "relu4"),
    "conv5": ("conv5", "bn5", "relu5"),
    "fc6": ("pool5", "flatten", "fc6", "relu6"),
    "fc7": ("drop6", "fc7", "relu7"),
}


class CaffeNet(Trunk):
    """bvlc_reference_caffenet up to fc7: convolution, ReLU, pooling, then LRN; two groups; ceil-mode pooling.

    Layers are after their ReLU, before pooling. Input 227: 55, 27, 13, 13, 13 pixels a side. fc7 is followed by
    dropout in the classifier, not here. With `bn`, each convolution is normalised over the batch and LRN is left out.
    """

    def __init__(self, options: CaffeNetOptions, *, top: bool = True, dropout: float = 0.5):
        super().__init__(options, top=top)
        c1, c2, c3, c4, c5 = (scaled(c, options.width) for c in (96, 256, 384, 384, 256))
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
        if top:
            hidden = scaled(4096, options.width)
            side = _caffenet_side(options.size, options.stem_stride or 4)
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

    def step(self, layer: str, x: Tensor) -> Tensor:
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


class AlexNet(Trunk):
    """torchvision's AlexNet up to fc7, with torchvision's tensor names.

    Layers are after their ReLU; conv1..conv5 before pooling. Input 224: 55, 27, 13, 13, 13 pixels a side.
    """

    def __init__(self, options: AlexNetOptions, *, top: bool = True, dropout: float = 0.5):
        super().__init__(options, top=top)
        c1, c2, c3, c4, c5 = (scaled(c, options.width) for c in (64, 192, 384, 256, 256))
        self.features = nn.Sequential(
            nn.Conv2d(3, c1, 11, stride=options.stem_stride or 4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c1, c2, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c2, c3, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c3, c4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c4, c5, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
        )
        if top:
            hidden = scaled(4096, options.width)
            self.avgpool = nn.AdaptiveAvgPool2d(6)
            self.classifier = nn.Sequential(
                nn.Dropout(dropout),
                nn.Linear(c5 * 36, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                nn.ReLU(inplace=True),
            )

    _SPANS = {"conv1": (0, 2), "conv2": (2, 5), "conv3": (5, 8), "conv4": (8, 10), "conv5": (10, 12)}

    def step(self, layer: str, x: Tensor) -> Tensor:
        """From the layer before to this one."""
        if layer == "fc6":
            return self.classifier[:3](self.avgpool(self.features[12](x)).flatten(1))
        if layer == "fc7":
            return self.classifier[3:](x)
        start, stop = self._SPANS[layer]
        return self.features[start:stop](x)
