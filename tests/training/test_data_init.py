"""Tests of data-dependent initialization."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ssltransfer.config.backbones import AlexNet, BackboneOptions, CaffeNet, ResNet18, Vgg16
from ssltransfer.models.backbone import Backbone, LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.fuse_bn import fuse_conv_bn
from ssltransfer.training import data_init as module
from ssltransfer.training.data_init import balance, normalize_channels, rescale

CAFFENET = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2)
ALEXNET = AlexNet(width_mult=0.125, img_size=96)
VGG = Vgg16(width_mult=0.06, img_size=32, bn=False)


def uneven(options: BackboneOptions) -> Backbone:
    """Layers of very different scales, channels too."""
    backbone = build_backbone(options, include_top=True, seed=2).double()
    generator = torch.Generator().manual_seed(3)
    for place, layer in enumerate(m for m in backbone.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
        assert layer.bias is not None
        scale = torch.rand(len(layer.weight), generator=generator).double() + 0.5
        layer.weight.data *= (0.2, 3.0, 1.0)[place % 3] * scale.view(-1, *[1] * (layer.weight.ndim - 1))
        layer.bias.data += 0.05 * torch.randn(layer.bias.shape, generator=generator).double()
    return backbone.eval().requires_grad_(False)


def batches_for(options: BackboneOptions, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(8, 3, options.img_size, options.img_size, generator=generator).double() for _ in range(count)]


def before_relu(backbone: Backbone, batches: list[Tensor]) -> dict[str, Tensor]:
    """Values of each weighted layer, (channels, values), in order."""
    found: dict[str, list[Tensor]] = {}
    hooks = [
        part.register_forward_hook(
            lambda _, __, out, name=name: found.setdefault(name, []).append(out.transpose(0, 1).flatten(1).clone())
        )
        for name, part in backbone.named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        for x in batches:
            backbone(x)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts, 1) for name, parts in found.items()}


def test_normalize_channels_by_hand() -> None:
    """conv1 of constant images 1 and 3 is 2x + 4: 6 and 10, mean 8, std 2. So it becomes x + (4 - 8) / 2: -1 and 1."""
    backbone = build_backbone(CAFFENET, include_top=False).double().requires_grad_(False)
    conv1 = backbone.get_submodule("conv1")
    assert isinstance(conv1, nn.Conv2d) and conv1.bias is not None
    conv1.weight.fill_(2 / conv1.weight[0].numel())
    conv1.bias.fill_(4)
    normalize_channels(backbone, [torch.full((1, 3, 64, 64), value).double() for value in (1, 3)])
    torch.testing.assert_close(conv1.weight.sum((1, 2, 3)), torch.ones(16).double())
    torch.testing.assert_close(conv1.bias, torch.full((16,), -2.0).double())


@pytest.mark.parametrize("options", [CAFFENET, ALEXNET, VGG], ids=lambda options: options.name)
def test_normalize_channels_gives_mean_0_and_variance_1(options: BackboneOptions) -> None:
    backbone, batches = uneven(options), batches_for(options)
    normalize_channels(backbone, batches)
    for name, values in before_relu(backbone, batches).items():
        assert float(values.mean(1).abs().max()) < 1e-6, name
        std = values.std(1, correction=0)
        alive = std > 1e-6  # a channel whose inputs are all silent has nothing to scale
        assert float(alive.double().mean()) > 0.9
        assert float((std[alive] - 1).abs().max()) < 1e-6, name


def test_normalize_channels_keeps_constant_channels() -> None:
    backbone, batches = uneven(CAFFENET), batches_for(CAFFENET, 1)
    layer = backbone.get_submodule("conv3")
    assert isinstance(layer, nn.Conv2d) and layer.bias is not None
    layer.weight[0], layer.bias[0] = layer.weight[0] * 1e-12, 0.3
    before = layer.weight[0].clone()
    normalize_channels(backbone, batches)
    assert torch.equal(layer.weight[0], before) and abs(float(layer.bias[0])) < 1e-9


def ratios(backbone: Backbone, batches: list[Tensor], seed: int) -> Tensor:
    """Relative gradients by definition: root mean squares of autograd's own gradients over the batches."""
    layers = [m for m in backbone.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    generator = torch.Generator().manual_seed(seed)
    squares = torch.zeros(len(layers))
    backbone.requires_grad_(True)
    for x in batches:
        backbone.zero_grad()
        out = backbone(x)[backbone.layers[-1]]
        (out * torch.randn(out.shape, generator=generator)).sum().backward()
        squares += torch.tensor([float(layer.weight.grad.square().mean()) for layer in layers])  # type: ignore[union-attr]
    backbone.requires_grad_(False)
    sizes = torch.tensor([float(layer.weight.square().mean()) for layer in layers])
    return (squares / len(batches) / sizes).sqrt()


@pytest.mark.parametrize("options", [ALEXNET, VGG], ids=lambda options: options.name)
def test_balance_equalizes_gradient_ratios_and_keeps_the_function(options: BackboneOptions) -> None:
    backbone, batches = uneven(options), batches_for(options)
    normalize_channels(backbone, batches)
    with torch.no_grad():
        before = backbone(batches[0])[backbone.layers[-1]].clone()
    apart = ratios(backbone, batches, 9).log()
    balance(backbone, batches, seed=9)
    with torch.no_grad():
        after = backbone(batches[0])[backbone.layers[-1]]
    # Nothing between the layers but ReLU, pooling and averages: scales pass through, and their product is one.
    torch.testing.assert_close(after, before, rtol=1e-8, atol=1e-8)
    evened = ratios(backbone, batches, 9).log()
    assert float((apart - apart.mean()).abs().max()) > 0.3
    assert float((evened - evened.mean()).abs().max()) < module.CLOSE


def test_balance_nearly_keeps_the_function_with_lrn() -> None:
    backbone, batches = uneven(CAFFENET), batches_for(CAFFENET)
    normalize_channels(backbone, batches)
    with torch.no_grad():
        before = backbone(batches[0])["fc7"].clone()
    balance(backbone, batches, seed=9)
    with torch.no_grad():
        after = backbone(batches[0])["fc7"]
    factor = float((before * after).sum() / before.square().sum())
    assert 0.5 < factor < 2
    assert float((after / factor - before).norm() / before.norm()) < 0.1
    evened = ratios(backbone, batches, 9).log()
    assert float((evened - evened.mean()).abs().max()) < 2 * module.CLOSE


def test_rescale_gives_unit_variance_and_keeps_requires_grad() -> None:
    backbone, batches = uneven(ALEXNET), batches_for(ALEXNET)
    backbone.get_submodule("classifier").requires_grad_(True)
    rescale(backbone, batches, seed=1)
    values = list(before_relu(backbone, batches).values())[-1]
    assert values.std(1, correction=0).numpy() == pytest.approx(1, abs=1e-5)
    learning = {name.split(".")[0] for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert learning == {"classifier"}


def test_rescale_is_a_function_of_the_seed() -> None:
    first, again, other = (uneven(CAFFENET) for _ in range(3))
    for backbone, seed in ((first, 1), (again, 1), (other, 2)):
        rescale(backbone, batches_for(CAFFENET, 1), seed=seed)
    pairs = list(zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert all(torch.equal(one, two) for one, two in pairs)
    assert not torch.equal(first.state_dict()["conv1.weight"], other.state_dict()["conv1.weight"])


def test_rescale_refuses_shortcuts_batch_norms_and_dead_layers() -> None:
    with pytest.raises(LayerError, match="resnet18: its layers have no scale of their own"):
        rescale(build_backbone(ResNet18(width_mult=0.125, img_size=32), include_top=True), [])
    normed = build_backbone(CaffeNet(width_mult=0.125, img_size=64, stem_stride=2, bn=True), include_top=True)
    with pytest.raises(LayerError, match=r"caffenet has batch norms.*\(`fuse_bn`\)"):
        rescale(normed, [])
    fuse_conv_bn(normed)
    rescale(normed.double(), batches_for(CAFFENET, 1))
    dead = uneven(CAFFENET)
    nn.init.zeros_(dead.get_submodule("conv3").weight)  # type: ignore[arg-type]
    nn.init.constant_(dead.get_submodule("conv3").bias, -1.0)  # type: ignore[arg-type]
    with pytest.raises(LayerError, match="no gradient reaches"):
        rescale(dead, batches_for(CAFFENET, 1))
