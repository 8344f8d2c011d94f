"""ResNet-50 v2 and ResNet-101 v2 against their authors' units, torchvision's convolutions and the published counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.backbones import ResNet50V2, ResNet101V2
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone, rebuild
from ssltransfer.models.resnets_v2 import Unit
from ssltransfer.models.weights import read_model, write_model
from tests.helpers.networks import noise, shaken_backbone

SMALL_50 = ResNet50V2(width_mult=0.125, img_size=64)
SMALL_101 = ResNet101V2(width_mult=0.125, img_size=64)


def textbook(
    backbone: Backbone, x: Tensor, *, strides: tuple[int, ...], eps: float, border: float
) -> dict[str, Tensor]:
    """Units as their authors wrote them, each with its own norm and ReLU first, and a norm at the end.

    Args:
        strides: of the first unit of each block.
        eps: of the norms.
        border: value around the input of the pooling: 0 in TensorFlow, minus infinity in torch.
    """

    def norm(x: Tensor, module: Any) -> Tensor:
        scale = module.weight / torch.sqrt(module.running_var + eps)
        return x * scale.view(-1, 1, 1) + (module.bias - module.running_mean * scale).view(-1, 1, 1)

    stem: Any = backbone.get_submodule("conv1")
    found = {"conv1": F.conv2d(F.pad(x, (3, 3, 3, 3)), stem.weight, stride=stem.stride)}
    x = F.max_pool2d(F.pad(found["conv1"], (1, 1, 1, 1), value=border), 3, 2)
    for number, first_stride in enumerate(strides, 1):
        for place, unit in enumerate(backbone.get_submodule(f"block{number}").children()):
            assert isinstance(unit, Unit)
            stride = first_stride if place == 0 else 1
            before = backbone.get_submodule(f"norm{number - 1}") if place == 0 else unit.before[0]  # type: ignore[index]
            normed = norm(x, before).relu()
            if place == 0 and number > 1:
                found[f"block{number - 1}"] = normed
            weights: list[Any] = [part.weight for part in unit.branch if isinstance(part, nn.Conv2d)]
            y = norm(F.conv2d(normed, weights[0]), unit.branch[1]).relu()
            y = norm(F.conv2d(F.pad(y, (1, 1, 1, 1)), weights[1], stride=stride), unit.branch[4]).relu()
            shortcut = F.conv2d(normed, unit.shortcut.weight, stride=stride) if unit.shortcut else x
            x = F.conv2d(y, weights[2]) + shortcut
    last = len(strides)
    x = norm(x, backbone.get_submodule(f"norm{last}"))
    found[f"block{last}"] = x.relu() if backbone.options.last_relu else x  # type: ignore[attr-defined]
    found["pool"] = found[f"block{last}"].mean((2, 3))
    return found


def published_parameters(width: int) -> int:
    """Of the released network, written as sums over its units; the backbone without logits."""
    channels, total = 64 * width, 3 * 49 * 64 * width
    for units, out in ((3, 256), (4, 512), (6, 1024), (3, 2048)):
        out, inner = out * width, out * width // 4
        for unit in range(units):
            total += 2 * channels + channels * inner + 2 * inner + 9 * inner**2 + 2 * inner + inner * out
            total += channels * out if unit == 0 else 0
            channels = out
    return total + 2 * channels


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_resnet50_v2_parameters_and_pre_logits_at_the_published_widths(width: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(ResNet50V2(width_mult=width), include_top=True)
    assert sum(p.numel() for p in backbone.parameters()) == published_parameters(width)
    assert backbone.shapes()["pool"] == (2048 * width,)
    assert published_parameters(1) == 25_549_352 - 2_049_000  # timm's resnetv2_50 and its classifier


@pytest.mark.parametrize("last_relu", [True, False])
def test_resnet50_v2_matches_the_released_code(last_relu: bool) -> None:
    backbone, x = (
        shaken_backbone(SMALL_50.model_copy(update={"last_relu": last_relu})),
        noise(2, 3, 64, 64, dtype=torch.float64),
    )
    with torch.no_grad():
        found, wanted = backbone(x, backbone.layers), textbook(backbone, x, strides=(1, 2, 2, 2), eps=1e-3, border=0.0)
    assert found.keys() == wanted.keys()
    for layer, value in wanted.items():
        torch.testing.assert_close(found[layer], value, rtol=1e-9, atol=1e-9, msg=layer)
    assert bool((found["block4"] < 0).any()) != last_relu


def test_resnet50_v2_patch_strides_match_the_released_code() -> None:
    usual, x = shaken_backbone(SMALL_50), noise(2, 3, 64, 64, dtype=torch.float64)
    tiles = build_backbone(SMALL_50.for_tiles(None), include_top=False).double().eval()
    tiles.load_state_dict(usual.state_dict())
    with torch.no_grad():
        found, wanted = tiles(x, tiles.layers), textbook(tiles, x, strides=(1, 2, 2, 1), eps=1e-3, border=0.0)
    assert found["block4"].shape[-1] == 8
    for layer, value in wanted.items():
        torch.testing.assert_close(found[layer], value, rtol=1e-9, atol=1e-9, msg=layer)


def test_resnet50_v2_batch_norms_have_tensorflow_options() -> None:
    for momentum in (0.01, 0.2):
        backbone = build_backbone(SMALL_50.model_copy(update={"norm_momentum": momentum}), include_top=True)
        norms = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm2d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, momentum)}


def test_resnet50_v2_representation_is_linear_in_pool() -> None:
    backbone = build_backbone(SMALL_50.model_copy(update={"embed_dim": 12}), include_top=True, seed=3).double().eval()
    plain = build_backbone(SMALL_50, include_top=True, seed=3).double().eval()
    missing, unexpected = plain.load_state_dict(backbone.state_dict(), strict=False)
    assert not missing and sorted(unexpected) == ["representation.bias", "representation.weight"]
    nn.init.normal_(backbone.get_submodule("representation").bias)  # type: ignore[arg-type]
    x = noise(20, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        found, pool = backbone(x, ["pool", "representation"]), plain(x)["pool"]
    assert torch.equal(found["pool"], pool) and found["representation"].shape == (20, 12)
    weight = backbone.get_submodule("representation").weight
    bias = backbone.get_submodule("representation").bias
    torch.testing.assert_close(found["representation"], pool @ weight.T + bias)
    assert (
        backbone.options.layers[-2:] == ("pool", "representation")
        and backbone.options.embedding_layer == "representation"
    )
    assert SMALL_50.embedding_layer == "pool" and SMALL_50.spatial_layers[-1] == "block4"


def test_resnet50_v2_block4_and_output_stride_options() -> None:
    backbone = build_backbone(SMALL_50.model_copy(update={"block4": False, "output_stride": 8}), include_top=True)
    assert backbone.layers == ("conv1", "block1", "block2", "block3", "pool")
    assert backbone.shapes()["block3"] == (128, 8, 8)


def test_resnet50_v2_random_features_are_of_order_one_and_train() -> None:
    backbone = build_backbone(SMALL_50, include_top=True)
    x = noise(4, 3, 64, 64)
    with torch.no_grad():
        for layer, value in backbone.eval()(x, backbone.layers).items():
            assert layer == "pool" or 0.2 < float(value.std()) < 10, layer
    backbone.train()(x)["pool"].square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_resnet50_v2_write_and_read_model(tmp_path: Path) -> None:
    backbone = shaken_backbone(SMALL_50.model_copy(update={"embed_dim": 12, "last_relu": False})).float()
    with WorkDir("pretext", tmp_path / "m" / "manifest.json", "{}", {}) as work:
        work.finish(write_model(tmp_path / "m", backbone, "half", {}))
    model, backbone = read_model(work.output), backbone.to(memory_format=torch.channels_last)
    assert model.backbone.options == backbone.options
    x = noise(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.backbone(x)["representation"], backbone(x)["representation"])


def meta_101(**options: object) -> Backbone:
    with torch.device("meta"):
        return build_backbone(ResNet101V2(**options), include_top=True)


def test_resnet101_v2_convolutions_match_torchvision_resnet101() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.resnet101()
    for block4 in (False, True):
        wanted = Counter(
            tuple(value.shape)
            for name, value in theirs.named_parameters()
            if value.ndim == 4 and (block4 or not name.startswith("layer4"))
        )
        assert Counter(tuple(p.shape) for p in meta_101(block4=block4).parameters() if p.ndim == 4) == wanted


def test_resnet101_v2_parameters_match_the_paper() -> None:
    """44.54 million with 1000 answers (timm's resnetv2_101); v1 has a norm more in each block's first unit."""
    whole = sum(p.numel() for p in meta_101(block4=True).parameters()) + 2_049_000
    assert whole == 44_549_160 - 2 * (256 + 512 + 1024 + 2048)
    assert 27.4e6 < sum(p.numel() for p in meta_101().parameters()) < 27.6e6


@pytest.mark.parametrize(
    ("stride", "height", "width", "shape"),
    [
        *((8, 96, 96, (12, 12)), (8, 256, 256, (32, 32)), (8, 240, 320, (30, 40)), (8, 224, 224, (28, 28))),
        *((16, 224, 224, (14, 14)), (16, 228, 304, (15, 19))),
    ],
)
def test_resnet101_v2_maps_have_the_published_sizes(
    stride: int, height: int, width: int, shape: tuple[int, int]
) -> None:
    backbone = meta_101(output_stride=stride)
    assert backbone(torch.empty(1, 3, height, width, device="meta"), ["block3"])["block3"].shape == (1, 1024, *shape)


def test_resnet101_v2_layers() -> None:
    shapes = meta_101(output_stride=16, block4=True).shapes(224)
    assert shapes["conv1"] == (64, 112, 112) and shapes["block1"] == (256, 56, 56) and shapes["block2"][1:] == (28, 28)
    assert shapes["block4"] == (2048, 7, 7) and shapes["pool"] == (2048,)
    assert meta_101().layers == ("conv1", "block1", "block2", "block3", "pool") and meta_101().shapes()["pool"] == (
        1024,
    )
    assert meta_101(block4=True).shapes(224)["block4"] == (2048, 14, 14)
    assert ResNet101V2(output_stride=16, block4=True).slug == "resnet101-v2-os16-block4"
    assert ResNet101V2().slug == "resnet101-v2"


@pytest.mark.parametrize("sides", [(64, 64), (75, 102)])
def test_resnet101_v2_dilated_map_contains_the_strided_one(sides: tuple[int, int]) -> None:
    dense = shaken_backbone(SMALL_101.model_copy(update={"block4": True})).to(memory_format=torch.channels_last)
    strided = rebuild(dense, output_stride=16).double()
    strided.load_state_dict(dense.state_dict())  # rebuilding rounds to float32
    assert strided.options == SMALL_101.model_copy(update={"block4": True, "output_stride": 16})
    x = noise(2, 3, *sides, dtype=torch.float64)
    with torch.no_grad():
        one, other = dense(x, dense.layers), strided(x, strided.layers)
    for layer in ("block3", "block4"):
        assert one[layer].shape != other[layer].shape
        assert torch.allclose(one[layer][..., ::2, ::2], other[layer], rtol=1e-6, atol=1e-8), layer
    assert torch.equal(one["block2"], other["block2"])


def test_resnet101_v2_units_match_a_plain_implementation() -> None:
    backbone = shaken_backbone(SMALL_101.model_copy(update={"output_stride": 16}))
    x = noise(2, 3, 64, 64, seed=2, dtype=torch.float64)
    with torch.no_grad():
        found, wanted = (
            backbone(x, backbone.layers),
            textbook(backbone, x, strides=(1, 2, 2), eps=1e-5, border=-torch.inf),
        )
    for layer, value in wanted.items():
        assert torch.allclose(found[layer], value, rtol=1e-6, atol=1e-8), layer
    assert torch.allclose(found["pool"], wanted["block3"].mean((2, 3)), rtol=1e-6, atol=1e-8)


def test_resnet101_v2_all_parameters_get_gradients() -> None:
    backbone = build_backbone(SMALL_101, include_top=True).train()
    x = noise(2, 3, 64, 64, seed=3)
    backbone(x)["pool"].square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("block4", [False, True])
def test_resnet101_v2_write_and_read_model(tmp_path: Path, block4: bool) -> None:
    backbone = shaken_backbone(SMALL_101.model_copy(update={"block4": block4, "output_stride": 16})).float()
    with WorkDir("pretext", tmp_path / "m" / "manifest.json", "{}", {}) as work:
        work.finish(write_model(tmp_path / "m", backbone, "imagenet", {}))
    model, backbone = read_model(work.output), backbone.to(memory_format=torch.channels_last)
    assert model.backbone.options == backbone.options and model.backbone.layers == backbone.layers
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.backbone(x)["pool"], backbone(x)["pool"])


def test_resnet101_v2_random_features_are_of_order_one() -> None:
    backbone = build_backbone(SMALL_101.model_copy(update={"block4": True}), include_top=True).eval()
    x = noise(2, 3, 64, 64, seed=3)
    with torch.no_grad():
        for layer, value in backbone(x, backbone.layers).items():
            assert layer == "pool" or 0.3 < float(value.std()) < 10, layer


def test_resnet_v2_without_shortcuts_is_its_branches():
    options = ResNet50V2(width_mult=0.125, shortcuts=False)
    network = build_backbone(options, seed=0, include_top=False).eval()
    units = [module for module in network.modules() if isinstance(module, Unit)]
    assert len(units) == 16 and not any("shortcut" in name for name, _ in network.named_parameters())
    x = torch.randn(2, 32, 8, 8)
    assert units[1].before is not None
    with torch.no_grad():
        assert torch.equal(units[1](x), units[1].branch(units[1].before(x.clone())))
        for convolution in units[1].branch:
            if isinstance(convolution, nn.Conv2d):
                convolution.weight.zero_()
        assert not units[1](x).any()
