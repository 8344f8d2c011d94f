"""A network without its batch norms computes what it did with them."""

from __future__ import annotations

import pytest
import torch
from networks import shaken_trunk
from torch import nn

from ssltransfer.config.trunks import (
    AlexNet,
    AlexNetBig,
    AlexNetBN,
    CaffeNet,
    MobileNetV2,
    ResNet18,
    ResNet50,
    ResNet50V2,
    RevNet50,
    TrunkOptions,
    Vgg16,
    Vgg19BN,
)
from ssltransfer.models.absorb import absorb_norms
from ssltransfer.models.build import build_trunk
from ssltransfer.models.trunk import BATCH_NORMS, LayerError


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (CaffeNet(width=0.125, size=64, stem_stride=2, bn=True), 5),
        (Vgg16(width=0.06, size=64), 13),
        (ResNet18(width=0.125, size=64), 20),
        (ResNet50(width=0.125, size=64), 53),
        (AlexNet(width=0.125, size=96), 0),
        (AlexNetBN(width=0.06, size=96), 7),
        (AlexNetBig(width=0.06, size=96), 5),
        (Vgg19BN(width=0.06, size=64), 18),
        (MobileNetV2(width=0.25, size=64), 52),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_function_stays(options: TrunkOptions, count: int) -> None:
    trunk = shaken_trunk(options)
    x = torch.randn(2, 3, options.size, options.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = trunk(x, trunk.layers)
        assert absorb_norms(trunk) == count
        after = trunk(x, trunk.layers)
    assert not any(isinstance(module, BATCH_NORMS) for module in trunk.modules())
    for layer in trunk.layers:
        assert float(before[layer].std()) > 1e-3
        torch.testing.assert_close(after[layer], before[layer], rtol=1e-9, atol=1e-9)


def test_what_learned_learns_on() -> None:
    trunk = build_trunk(ResNet18(width=0.125, size=32), top=True)
    trunk.requires_grad_(False)
    trunk.get_submodule("layer4").requires_grad_(True)
    absorb_norms(trunk)
    learning = {name for name, parameter in trunk.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, _ in trunk.named_parameters() if name.startswith("layer4")}
    assert "layer4.0.conv1.bias" in learning and all(parameter.is_leaf for parameter in trunk.parameters())


def test_caffenet_gets_no_local_response_normalisation() -> None:
    trunk = build_trunk(CaffeNet(width=0.125, size=64, stem_stride=2, bn=True), top=True)
    absorb_norms(trunk)
    assert not any(isinstance(module, nn.LocalResponseNorm | nn.BatchNorm2d) for module in trunk.modules())


@pytest.mark.parametrize("options", [ResNet50V2(width=0.125, size=64), RevNet50(width=0.125, size=64)])
def test_norms_before_convolutions_are_refused(options: TrunkOptions) -> None:
    with pytest.raises(LayerError, match=f"{options.name}: its batch norms do not come right after"):
        absorb_norms(build_trunk(options, top=True))


def test_norms_of_fully_connected_layers_alone() -> None:
    trunk = shaken_trunk(AlexNetBN(width=0.06, size=64))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = trunk(x)["fc7"]
        assert absorb_norms(trunk, linear_only=True) == 2
        torch.testing.assert_close(trunk(x)["fc7"], before, rtol=1e-9, atol=1e-9)
    norms = [module for module in trunk.modules() if isinstance(module, BATCH_NORMS)]
    assert len(norms) == 5 and all(isinstance(norm, nn.BatchNorm2d) for norm in norms)
