"""VGG16 with torchvision's tensor names, and Kolesnikov's VGG19."""

from torch import Tensor, nn

from ssltransfer.config.backbones import vggs as config
from ssltransfer.models.backbone import BACKBONES, Backbone, apply_batch_norm_options, scaled
from ssltransfer.models.sobel import Sobel

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_BLOCKS_19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


@BACKBONES.register(config.Vgg16)
class Vgg16(Backbone):
    """Thirteen 3x3 convolutions; layers are after their ReLU, before pooling (224: 224, 112, 56, 28, 14 a side).

    With `sobel` the input of conv1_1 is two gradients instead of colors, as in DeepCluster's.
    """

    def __init__(self, options: config.Vgg16, *, include_top: bool = True, dropout: float = 0.5):
        super().__init__(options, include_top=include_top)
        parts: list[nn.Module] = []
        self._spans: dict[str, tuple[int, int]] = {}
        channels, start = 2 if options.sobel else 3, 0
        self.gradients = Sobel() if options.sobel else nn.Identity()
        for block, (width, convolutions) in enumerate(_BLOCKS, 1):
            for number in range(1, convolutions + 1):
                out = scaled(width, options.width_mult)
                stride = options.stem_stride or 1 if not parts else 1
                parts.append(nn.Conv2d(channels, out, 3, stride=stride, padding=1))
                if options.bn:
                    parts.append(nn.BatchNorm2d(out))
                parts.append(nn.ReLU(inplace=True))
                channels = out
                self._spans[f"conv{block}_{number}"] = (start, len(parts))
                start = len(parts)
            parts.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*parts)
        if include_top:
            hidden = scaled(4096, options.width_mult)
            self.avgpool = nn.AdaptiveAvgPool2d(7)
            self.classifier = nn.Sequential(
                nn.Linear(channels * 49, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                nn.ReLU(inplace=True),
            )

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """See `Backbone`."""
        if layer == "fc6":
            return self.classifier[:2](self.avgpool(self.features[-1](x)).flatten(1))
        if layer == "fc7":
            return self.classifier[2:](x)
        if layer == "conv1_1":
            x = self.gradients(x)
        start, stop = self._spans[layer]
        return self.features[start:stop](x)


@BACKBONES.register(config.Vgg19BN)
class Vgg19BN(Backbone):
    """Kolesnikov et al. 2019, released vggnet.py; protocols 2.2b. Width 1 is their k = 8.

    Layers, all after batch norm and ReLU: conv1 is the input of the first pooling, and block1 to block4 are the inputs
    of the other four. fc6 reads the whole map of an image of `img_size`: 7x7 for 224, 2x2 for 64. The logits are linear
    in fc7.
    """

    def __init__(self, options: config.Vgg19BN, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, include_top=include_top)
        channels = 3
        for layer, (width, convolutions) in zip(options.spatial_layers, _BLOCKS_19, strict=True):
            parts: list[nn.Module] = []
            out = scaled(width, options.width_mult)
            for _ in range(convolutions):
                stride = options.stem_stride or 1 if channels == 3 else 1
                convolution = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
                parts += [convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
                channels = out
            self.add_module(layer, nn.Sequential(*parts))
        self.maxpool = nn.MaxPool2d(2, 2)
        hidden = scaled(4096, options.width_mult)
        for layer, features in (("fc6", channels * options.fc6_side**2), ("fc7", hidden)):
            linear = nn.Linear(features, hidden, bias=False)
            self.add_module(layer, nn.Sequential(linear, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)))
        apply_batch_norm_options(self, options)

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """See `Backbone`."""
        if layer.startswith("block") or layer == "fc6":
            x = self.maxpool(x)
        return self.get_submodule(layer)(x.flatten(1) if layer == "fc6" else x)
