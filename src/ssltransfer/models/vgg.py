"""VGG16, with or without batch normalisation, with torchvision's tensor names."""

from __future__ import annotations

from torch import Tensor, nn

from ssltransfer.config.trunks import Vgg16 as Vgg16Options
from ssltransfer.models.trunk import Trunk, scaled

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class Vgg16(Trunk):
    """Thirteen 3x3 convolutions; layers are after their ReLU, before pooling (224: 224, 112, 56, 28, 14 a side)."""

    def __init__(self, options: Vgg16Options, *, top: bool = True, dropout: float = 0.5):
        super().__init__(options, top=top)
        parts: list[nn.Module] = []
        self._spans: dict[str, tuple[int, int]] = {}
        channels, start = 3, 0
        for block, (width, convolutions) in enumerate(_BLOCKS, 1):
            for number in range(1, convolutions + 1):
                out = scaled(width, options.width)
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
        if top:
            hidden = scaled(4096, options.width)
            self.avgpool = nn.AdaptiveAvgPool2d(7)
            self.classifier = nn.Sequential(
                nn.Linear(channels * 49, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                nn.ReLU(inplace=True),
            )

    def step(self, layer: str, x: Tensor) -> Tensor:
        """From the layer before to this one."""
        if layer == "fc6":
            return self.classifier[:2](self.avgpool(self.features[-1](x)).flatten(1))
        if layer == "fc7":
            return self.classifier[2:](x)
        start, stop = self._spans[layer]
        return self.features[start:stop](x)
