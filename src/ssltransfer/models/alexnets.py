"""AlexNets: CaffeNet, torchvision's, DeepCluster's and RotNet's are different networks."""

from collections import OrderedDict

from torch import Tensor, nn

from ssltransfer.config.backbones import alexnets as config
from ssltransfer.models.backbone import BACKBONES, Backbone, scaled
from ssltransfer.models.local_response_norm import LocalResponseNorm
from ssltransfer.models.sobel import Sobel

_CAFFENET_PARTS = {
    "conv1": ("conv1", "bn1", "relu1"),
    "conv2": ("pool1", "norm1", "conv2", "bn2", "relu2"),
    "conv3": ("pool2", "norm2", "conv3", "bn3", "relu3"),
    "conv4": ("conv4", "bn4", "relu4"),
    "conv5": ("conv5", "bn5", "relu5"),
    "fc6": ("pool5", "flatten", "fc6", "relu6"),
    "fc7": ("drop6", "fc7", "relu7"),
}


@BACKBONES.register(config.CaffeNet)
class CaffeNet(Backbone):
    """bvlc_reference_caffenet up to fc7: convolution, ReLU, ceil-mode pooling, then LRN. Two groups.

    Layers are after their ReLU, before pooling. Input 227: 55, 27, 13, 13, 13 pixels a side. fc7 is followed by
    dropout in the classifier, not here. With `bn`, each convolution is normalized over the batch and LRN is left out.
    """

    def __init__(self, options: config.CaffeNet, *, include_top: bool = True, dropout: float = 0.5):
        super().__init__(options, include_top=include_top)
        c1, c2, c3, c4, c5 = (scaled(c, options.width_mult) for c in options.channels)
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(3, c1, 11, stride=options.stem_stride or 4),
            relu1=nn.ReLU(inplace=True),
            pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
            norm1=LocalResponseNorm(c1),
            conv2=nn.Conv2d(c1, c2, 5, padding=2, groups=2),
            relu2=nn.ReLU(inplace=True),
            pool2=nn.MaxPool2d(3, 2, ceil_mode=True),
            norm2=LocalResponseNorm(c2),
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
            side = options.side(options.img_size, poolings=3)
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
        """See `Backbone`."""
        for part in _CAFFENET_PARTS[layer]:
            if part in self._modules:
                x = self.get_submodule(part)(x)
        return x


@BACKBONES.register(config.AlexNet, config.AlexNetDeepCluster)
class AlexNet(Backbone):
    """AlexNet up to fc7, with the tensor names of torchvision, which are also DeepCluster's (protocols 2.1d).

    Layers are after their ReLU; conv1..conv5 before pooling. Input 224: 55, 27, 13, 13, 13 pixels a side. With `sobel`
    the input of conv1 is the horizontal and the vertical gradient of the mean of the channels.
    """

    def __init__(
        self, options: config.AlexNet | config.AlexNetDeepCluster, *, include_top: bool = True, dropout: float = 0.5
    ):
        super().__init__(options, include_top=include_top)
        sobel = isinstance(options, config.AlexNetDeepCluster) and options.sobel
        self.gradients = Sobel() if sobel else nn.Identity()
        parts: list[nn.Module] = []
        self._spans: dict[str, tuple[int, int]] = {}
        before = 2 if sobel else 3
        kernels = ((11, 2), (5, 2), (3, 1), (3, 1), (3, 1))
        for layer, width, (kernel, padding) in zip(options.base_layers, options.channels, kernels, strict=True):
            start, channels = len(parts), scaled(width, options.width_mult)
            if layer in ("conv2", "conv3"):
                parts.append(nn.MaxPool2d(3, 2))
            stride = options.stem_stride or 4 if layer == "conv1" else 1
            parts.append(nn.Conv2d(before, channels, kernel, stride=stride, padding=padding))
            if options.has_batch_norm:
                parts.append(nn.BatchNorm2d(channels))
            parts.append(nn.ReLU(inplace=True))
            self._spans[layer], before = (start, len(parts)), channels
        self.features = nn.Sequential(*parts, nn.MaxPool2d(3, 2))
        if include_top:
            hidden = scaled(4096, options.width_mult)
            self.avgpool = nn.AdaptiveAvgPool2d(6)
            self.classifier = nn.Sequential(
                nn.Dropout(dropout),
                nn.Linear(before * 36, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                nn.ReLU(inplace=True),
            )

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """See `Backbone`."""
        if layer == "fc6":
            return self.classifier[:3](self.avgpool(self.features[-1](x)).flatten(1))
        if layer == "fc7":
            return self.classifier[3:](x)
        start, stop = self._spans[layer]
        return self.features[start:stop](self.gradients(x) if layer == "conv1" else x)


@BACKBONES.register(config.AlexNetBN)
class AlexNetBN(Backbone):
    """RotNet's AlexNet up to fc7, with its tensor names; protocols 2.1c.

    torchvision's channels, batch norm between every layer and its ReLU, fully-connected layers without bias and
    without dropout. Layers are after their ReLU; conv1..conv5 before pooling.
    """

    _SPANS = {"conv1": (0, 1), "conv2": (1, 3), "conv3": (3, 5), "conv4": (5, 6), "conv5": (6, 7)}

    def __init__(self, options: config.AlexNetBN, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, include_top=include_top)
        c1, c2, c3, c4, c5 = (scaled(c, options.width_mult) for c in options.channels)
        blocks: list[nn.Module] = [
            _conv_bn_relu(nn.Conv2d(3, c1, 11, stride=options.stem_stride or 4, padding=2)),
            nn.MaxPool2d(3, 2),
            _conv_bn_relu(nn.Conv2d(c1, c2, 5, padding=2)),
            nn.MaxPool2d(3, 2),
            _conv_bn_relu(nn.Conv2d(c2, c3, 3, padding=1)),
            _conv_bn_relu(nn.Conv2d(c3, c4, 3, padding=1)),
            _conv_bn_relu(nn.Conv2d(c4, c5, 3, padding=1)),
            nn.MaxPool2d(3, 2),
        ]
        if include_top:
            hidden = scaled(4096, options.width_mult)
            # The identity for a map of 6x6, which images of 224 have.
            self.avgpool = nn.AdaptiveAvgPool2d(6)
            fc6 = (nn.Linear(c5 * 36, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True))
            fc7 = (nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True))
            blocks.append(nn.Sequential(nn.Flatten(), *fc6, *fc7))
        self._feature_blocks = nn.ModuleList(blocks)

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """See `Backbone`."""
        if layer == "fc6":
            x = self.avgpool(self._feature_blocks[7](x))
        if layer.startswith("fc"):
            classifier = self._feature_blocks[8]
            assert isinstance(classifier, nn.Sequential)
            return classifier[:4](x) if layer == "fc6" else classifier[4:](x)
        for block in self._feature_blocks[slice(*self._SPANS[layer])]:
            x = block(x)
        return x


def _conv_bn_relu(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))
