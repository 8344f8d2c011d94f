"""A network without its batch norms computes what it did with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssltransfer.config.backbones import (
    AlexNet,
    AlexNetBN,
    AlexNetDeepCluster,
    BackboneOptions,
    CaffeNet,
    MobileNetV2,
    ResNet18,
    ResNet50,
    ResNet50V2,
    RevNet50,
    Vgg16,
    Vgg19BN,
)
from ssltransfer.models.backbone import BATCH_NORMS, LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.fuse_bn import fuse_conv_bn
from ssltransfer.models.local_response_norm import LocalResponseNorm
from tests.helpers.networks import shaken_backbone


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (CaffeNet(width_mult=0.125, img_size=64, stem_stride=2, bn=True), 5),
        (Vgg16(width_mult=0.06, img_size=64), 13),
        (ResNet18(width_mult=0.125, img_size=64), 20),
        (ResNet50(width_mult=0.125, img_size=64), 53),
        (AlexNet(width_mult=0.125, img_size=96), 0),
        (AlexNetBN(width_mult=0.06, img_size=96), 7),
        (AlexNetDeepCluster(width_mult=0.06, img_size=96), 5),
        (Vgg19BN(width_mult=0.06, img_size=64), 18),
        (MobileNetV2(width_mult=0.25, img_size=64), 52),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_fuse_conv_bn_keeps_the_function(options: BackboneOptions, count: int) -> None:
    backbone = shaken_backbone(options)
    x = torch.randn(
        2, 3, options.img_size, options.img_size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        before = backbone(x, backbone.layers)
        assert fuse_conv_bn(backbone) == count
        after = backbone(x, backbone.layers)
    assert not any(isinstance(module, BATCH_NORMS) for module in backbone.modules())
    for layer in backbone.layers:
        assert float(before[layer].std()) > 1e-3
        torch.testing.assert_close(after[layer], before[layer], rtol=1e-9, atol=1e-9)


def test_fuse_conv_bn_keeps_requires_grad() -> None:
    backbone = build_backbone(ResNet18(width_mult=0.125, img_size=32), include_top=True)
    backbone.requires_grad_(False)
    backbone.get_submodule("layer4").requires_grad_(True)
    fuse_conv_bn(backbone)
    learning = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, _ in backbone.named_parameters() if name.startswith("layer4")}
    assert "layer4.0.conv1.bias" in learning and all(parameter.is_leaf for parameter in backbone.parameters())


def test_fuse_conv_bn_does_not_add_lrn() -> None:
    backbone = build_backbone(CaffeNet(width_mult=0.125, img_size=64, stem_stride=2, bn=True), include_top=True)
    fuse_conv_bn(backbone)
    assert not any(isinstance(module, LocalResponseNorm | nn.BatchNorm2d) for module in backbone.modules())


@pytest.mark.parametrize(
    "options", [ResNet50V2(width_mult=0.125, img_size=64), RevNet50(width_mult=0.125, img_size=64)]
)
def test_fuse_conv_bn_refuses_pre_activation_networks(options: BackboneOptions) -> None:
    with pytest.raises(LayerError, match=f"{options.name}: its batch norms do not directly follow"):
        fuse_conv_bn(build_backbone(options, include_top=True))


def test_fuse_conv_bn_of_linear_layers_only() -> None:
    backbone = shaken_backbone(AlexNetBN(width_mult=0.06, img_size=64))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = backbone(x)["fc7"]
        assert fuse_conv_bn(backbone, linear_only=True) == 2
        torch.testing.assert_close(backbone(x)["fc7"], before, rtol=1e-9, atol=1e-9)
    norms = [module for module in backbone.modules() if isinstance(module, BATCH_NORMS)]
    assert len(norms) == 5 and all(isinstance(norm, nn.BatchNorm2d) for norm in norms)
