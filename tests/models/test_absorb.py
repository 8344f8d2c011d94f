"""A network without its batch norms computes what it did with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssltransfer.config.trunks import AlexNet, CaffeNet, ResNet18, ResNet50, TrunkOptions, Vgg16
from ssltransfer.models.absorb import absorb_norms
from ssltransfer.models.build import build_trunk
from ssltransfer.models.trunk import Trunk


def shaken(options: TrunkOptions) -> Trunk:
    """Norms with statistics, scales and shifts that all matter."""
    trunk = build_trunk(options, top=True, seed=2).double().eval()
    generator = torch.Generator().manual_seed(3)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
            ):
                assert value is not None
                value.uniform_(low, high, generator=generator)
    return trunk


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (CaffeNet(width=0.125, size=64, stem_stride=2, bn=True), 5),
        (Vgg16(width=0.06, size=64), 13),
        (ResNet18(width=0.125, size=64), 20),
        (ResNet50(width=0.125, size=64), 53),
        (AlexNet(width=0.125, size=96), 0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_function_stays(options: TrunkOptions, count: int) -> None:
    trunk = shaken(options)
    x = torch.randn(2, 3, options.size, options.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = trunk(x, trunk.layers)
        assert absorb_norms(trunk) == count
        after = trunk(x, trunk.layers)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in trunk.modules())
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
