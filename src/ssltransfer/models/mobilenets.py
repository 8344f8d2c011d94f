"""MobileNetV2, with torchvision's blocks and tensor names."""

from torch import Tensor, nn
from torchvision.models.mobilenetv2 import mobilenet_v2

from ssltransfer.config.backbones import mobilenets as config
from ssltransfer.models.backbone import BACKBONES, Backbone

# Positions in torchvision's `features`. A block ends before the map is halved again.
_SPANS = {
    "conv1": (0, 1),
    "block1": (1, 4),
    "block2": (4, 7),
    "block3": (7, 14),
    "block4": (14, 18),
    "conv18": (18, 19),
}


@BACKBONES.register(config.MobileNetV2)
class MobileNetV2(Backbone):
    """Sandler et al. 2018; protocols 2.7.

    Layers: conv1 (after ReLU6), block1..block4 (the last unit of 24, 32, 96 and 320 channels at strides 4, 8, 16 and
    32, linear), conv18 (1280 channels after ReLU6), pool (global average, a vector). representation, with `embed_dim`,
    is a linear function of pool. As in torchvision, channels are rounded to multiples of 8, and a network with
    width_mult < 1 keeps the 1280 (Sandler et al. 2018, section 4).
    """

    def __init__(self, options: config.MobileNetV2, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, include_top=include_top)
        self.features: nn.Sequential = mobilenet_v2(weights=None, width_mult=options.width_mult).features
        if options.stem_stride:
            self.features[0][0].stride = (options.stem_stride,) * 2
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.add_representation(self.features[-1].out_channels)

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """See `Backbone`."""
        if layer == "pool":
            return self.avgpool(x).flatten(1)
        if layer == "representation":
            return self.representation(x)
        start, stop = _SPANS[layer]
        return self.features[start:stop](x)
