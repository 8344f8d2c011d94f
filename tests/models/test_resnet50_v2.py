"""ResNet-50 v2 against the released code's order of operations, and counts of its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.backbones import ResNet50V2
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone, build_tile_backbone
from ssltransfer.models.resnets_v2 import Unit
from ssltransfer.models.weights import read_model, write_model
from tests.helpers.networks import noise, shaken_backbone

SMALL = ResNet50V2(width_mult=0.125, img_size=64)


def parameters(width: int) -> int:
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
def test_parameters_and_pre_logits_at_the_published_widths(width: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(ResNet50V2(width_mult=width), include_top=True)
    assert sum(p.numel() for p in backbone.parameters()) == parameters(width)
    assert backbone.shapes()["pool"] == (2048 * width,)
    assert parameters(1) == 25_549_352 - 2_049_000  # timm's resnetv2_50 and its classifier


def textbook(backbone: Backbone, x: Tensor, strides: tuple[int, ...] = (1, 2, 2, 2)) -> dict[str, Tensor]:
    """bottleneck_v2 of the released code, unit for unit, with every norm in the same place."""

    def norm(x: Tensor, module: Any) -> Tensor:
        scale = module.weight / torch.sqrt(module.running_var + 1e-3)
        return x * scale.view(-1, 1, 1) + (module.bias - module.running_mean * scale).view(-1, 1, 1)

    stem: Any = backbone.get_submodule("conv1")
    found = {"conv1": F.conv2d(F.pad(x, (3, 3, 3, 3)), stem.weight, stride=stem.stride)}
    x = F.max_pool2d(F.pad(found["conv1"], (1, 1, 1, 1)), 3, 2)
    for number in (1, 2, 3, 4):
        for place, unit in enumerate(backbone.get_submodule(f"block{number}").children()):
            assert isinstance(unit, Unit)
            stride = strides[number - 1] if place == 0 else 1
            before = backbone.get_submodule(f"norm{number - 1}") if place == 0 else unit.before[0]  # type: ignore[index]
            normed = norm(x, before).relu()
            if place == 0 and number > 1:
                found[f"block{number - 1}"] = normed
            weights: list[Any] = [part.weight for part in unit.branch if isinstance(part, nn.Conv2d)]
            y = norm(F.conv2d(normed, weights[0]), unit.branch[1]).relu()
            y = norm(F.conv2d(F.pad(y, (1, 1, 1, 1)), weights[1], stride=stride), unit.branch[4]).relu()
            shortcut = F.conv2d(normed, unit.shortcut.weight, stride=stride) if unit.shortcut else x
            x = F.conv2d(y, weights[2]) + shortcut
    x = norm(x, backbone.get_submodule("norm4"))
    found["block4"] = x.relu() if backbone.options.last_relu else x  # type: ignore[attr-defined]
    found["pool"] = found["block4"].mean((2, 3))
    return found


@pytest.mark.parametrize("last_relu", [True, False])
def test_matches_the_released_code(last_relu: bool) -> None:
    backbone, x = (
        shaken_backbone(SMALL.model_copy(update={"last_relu": last_relu})),
        noise(2, 3, 64, 64, dtype=torch.float64),
    )
    with torch.no_grad():
        found, wanted = backbone(x, backbone.layers), textbook(backbone, x)
    assert found.keys() == wanted.keys()
    for layer, value in wanted.items():
        torch.testing.assert_close(found[layer], value, rtol=1e-9, atol=1e-9, msg=layer)
    assert bool((found["block4"] < 0).any()) != last_relu


def test_patch_strides_match_the_released_code() -> None:
    usual, x = shaken_backbone(SMALL), noise(2, 3, 64, 64, dtype=torch.float64)
    tiles = build_tile_backbone(SMALL, seed=0).double().eval()
    tiles.load_state_dict(usual.state_dict())
    with torch.no_grad():
        found, wanted = tiles(x, tiles.layers), textbook(tiles, x, strides=(1, 2, 2, 1))
    assert found["block4"].shape[-1] == 8
    for layer, value in wanted.items():
        torch.testing.assert_close(found[layer], value, rtol=1e-9, atol=1e-9, msg=layer)


def test_batch_norms_have_tensorflow_options() -> None:
    for momentum in (0.01, 0.2):
        backbone = build_backbone(SMALL.model_copy(update={"norm_momentum": momentum}), include_top=True)
        norms = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm2d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, momentum)}


def test_representation_is_linear_in_pool() -> None:
    backbone = build_backbone(SMALL.model_copy(update={"embed_dim": 12}), include_top=True, seed=3).double().eval()
    plain = build_backbone(SMALL, include_top=True, seed=3).double().eval()
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
    assert SMALL.embedding_layer == "pool" and SMALL.spatial_layers[-1] == "block4"


def test_block4_and_output_stride_options() -> None:
    backbone = build_backbone(SMALL.model_copy(update={"block4": False, "output_stride": 8}), include_top=True)
    assert backbone.layers == ("conv1", "block1", "block2", "block3", "pool")
    assert backbone.shapes()["block3"] == (128, 8, 8)


def test_random_features_are_of_order_one_and_train() -> None:
    backbone = build_backbone(SMALL, include_top=True)
    x = noise(4, 3, 64, 64)
    with torch.no_grad():
        for layer, value in backbone.eval()(x, backbone.layers).items():
            assert layer == "pool" or 0.2 < float(value.std()) < 10, layer
    backbone.train()(x)["pool"].square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_write_and_read_model(tmp_path: Path) -> None:
    backbone = shaken_backbone(SMALL.model_copy(update={"embed_dim": 12, "last_relu": False})).float()
    with WorkDir("pretext", tmp_path / "m" / "manifest.json", "{}", {}) as work:
        work.finish(write_model(tmp_path / "m", backbone, "half", {}))
    model = read_model(work.output)
    assert model.backbone.options == backbone.options
    x = noise(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.backbone(x)["representation"], backbone(x)["representation"])
