"""VGG19-BN against torchvision's convolutions, the released code's formula and a plain reading of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from ssltransfer.config.backbones import Vgg19BN
from ssltransfer.models.backbone import BATCH_NORMS
from ssltransfer.models.build import build_backbone

SMALL = Vgg19BN(width_mult=0.125, img_size=64)


def parameters(width: int, side: int = 7) -> int:
    """Convolutions without biases, a norm after each, two fully-connected layers of 4096 `width`."""
    channels, total = 3, 0
    for out, number in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(number):
            total += 9 * channels * out * width + 2 * out * width
            channels = out * width
    hidden = 4096 * width
    return total + channels * side**2 * hidden + hidden**2 + 4 * hidden


@pytest.mark.parametrize(("width", "size"), [(1, 224), (2, 224), (4, 64)])
def test_parameters(width: int, size: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(Vgg19BN(width_mult=width, img_size=size), include_top=True)
        theirs = torchvision.models.vgg19_bn()
    count = sum(p.numel() for p in backbone.parameters())
    assert count == parameters(width, size // 32)
    if (width, size) == (1, 224):
        # torchvision's has biases of convolutions and fully-connected layers, none of whose outputs are normed.
        convolutions = [part for part in theirs.features if isinstance(part, nn.Conv2d)]
        biases = sum(part.get_parameter("bias").numel() for part in convolutions) + 2 * 4096
        logits = 4096 * 1000 + 1000
        assert count == sum(p.numel() for p in theirs.parameters()) - biases - logits + 4 * 4096 == 139_583_936


def test_matches_the_released_code() -> None:
    backbone = build_backbone(SMALL, include_top=True).double().eval()
    generator = torch.Generator().manual_seed(2)
    for part in backbone.modules():
        if isinstance(part, BATCH_NORMS):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=generator)
    # torchvision's layers at these channels, with our weights; its eps is another and its biases are zero.
    plan = [c if isinstance(c, str) else c // 8 for c in torchvision.models.vgg.cfgs["E"]]
    features = torchvision.models.vgg.make_layers(plan, batch_norm=True).double().eval()
    ours = [part for name in backbone.options.spatial_layers for part in backbone.get_submodule(name).children()]
    theirs = [part for part in features if not isinstance(part, nn.MaxPool2d)]
    for mine, other in zip(ours, theirs, strict=True):
        other.load_state_dict(mine.state_dict(), strict=False)
        if isinstance(other, nn.Conv2d):
            assert other.bias is not None and mine.bias is None
            nn.init.zeros_(other.bias)
        elif isinstance(other, nn.BatchNorm2d):
            other.eps = 1e-3
    pools = [place for place, part in enumerate(features) if isinstance(part, nn.MaxPool2d)]
    with torch.no_grad():
        found = backbone(x, backbone.layers)
        for layer, place in zip(backbone.options.spatial_layers, pools, strict=True):
            torch.testing.assert_close(found[layer], features[:place](x), msg=layer)
        flat = features(x).flatten(1)
        for layer in ("fc6", "fc7"):
            parts: Any = backbone.get_submodule(layer)
            linear, norm, _ = parts
            flat = (flat @ linear.weight.T - norm.running_mean) / torch.sqrt(norm.running_var + 1e-3)
            flat = (flat * norm.weight + norm.bias).clamp(min=0)
            torch.testing.assert_close(found[layer], flat, msg=layer)


def test_layers() -> None:
    with torch.device("meta"):
        shapes = build_backbone(Vgg19BN(), include_top=True).shapes()
    assert shapes["block1"] == (128, 112, 112) and shapes["block4"] == (512, 14, 14) and shapes["fc7"] == (4096,)
    shapes = build_backbone(SMALL.for_tiles(None), include_top=False).shapes()
    assert [shapes[name][-1] for name in SMALL.spatial_layers] == [64, 32, 16, 8, 4]
    # Layers below fc6 take images of any size.
    backbone = build_backbone(SMALL, include_top=True).eval()
    assert backbone(torch.zeros(1, 3, 70, 96), ["block4"])["block4"].shape == (1, 64, 4, 6)
    assert SMALL.embedding_layer == "fc7" and SMALL.spatial_layers[-1] == "block4"


@pytest.mark.parametrize("size", [64, 65, 95, 96])
@pytest.mark.parametrize("stride", [1, 2])
def test_accepts_any_img_size(size: int, stride: int) -> None:
    backbone = build_backbone(Vgg19BN(width_mult=0.05, img_size=size, stem_stride=stride), include_top=True).eval()
    assert backbone(torch.zeros(1, 3, size, size))["fc7"].shape == (1, 208)
