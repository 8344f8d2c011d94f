"""ResNet-18 and ResNet-50 (v1), with torchvision's blocks and tensor names."""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ssltransfer.config.backbones import resnets as config
from ssltransfer.models.backbone import BACKBONES, Backbone, scaled


@BACKBONES.register(config.ResNet18, config.ResNet50)
class ResNet(Backbone):
    """Layers: conv1 (after ReLU, before pooling), block1..block4 (after ReLU), pool (global average, a vector).

    representation, with `embed_dim`, is a linear function of pool.
    """

    def __init__(self, options: config.ResNet, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, include_top=include_top)
        block: type[BasicBlock | Bottleneck] = Bottleneck if options.bottleneck else BasicBlock
        stem = scaled(64, options.width_mult)
        self.conv1 = nn.Conv2d(3, stem, 7, stride=options.stem_stride or 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = stem
        for number, depth in enumerate(options.depths, 1):
            planes = scaled(64 * 2 ** (number - 1), options.width_mult)
            first = (1, 2, 2, options.block4_stride)[number - 1]
            units: list[nn.Module] = []
            for unit in range(depth):
                stride = first if unit == 0 else 1
                out = planes * block.expansion
                shortcut = None
                if stride != 1 or channels != out:
                    convolution = nn.Conv2d(channels, out, 1, stride=stride, bias=False)
                    shortcut = nn.Sequential(convolution, nn.BatchNorm2d(out))
                units.append(block(channels, planes, stride, shortcut))
                channels = out
            self.add_module(f"layer{number}", nn.Sequential(*units))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.add_representation(channels)

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """See `Backbone`."""
        if layer == "conv1":
            return self.relu(self.bn1(self.conv1(x)))
        if layer == "pool":
            return self.avgpool(x).flatten(1)
        if layer == "representation":
            return self.representation(x)
        if layer == "block1":
            x = self.maxpool(x)
        return self.get_submodule(f"layer{layer[-1]}")(x)
