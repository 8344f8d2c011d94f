"""ResNet-101 v2 against the units as their authors wrote them, torchvision's convolutions and the published counts."""

from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.backbones import ResNet101V2
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone, rebuild
from ssltransfer.models.resnets_v2 import Unit
from ssltransfer.models.weights import read_model, write_model
from tests.helpers.networks import noise, shaken_backbone

SMALL = ResNet101V2(width_mult=0.125, img_size=64)


def meta(**options: object) -> Backbone:
    with torch.device("meta"):
        return build_backbone(ResNet101V2(**options), include_top=True)


def test_convolutions_match_torchvision_resnet101() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.resnet101()
    for block4 in (False, True):
        wanted = Counter(
            tuple(value.shape)
            for name, value in theirs.named_parameters()
            if value.ndim == 4 and (block4 or not name.startswith("layer4"))
        )
        assert Counter(tuple(p.shape) for p in meta(block4=block4).parameters() if p.ndim == 4) == wanted


def test_parameters_match_the_paper() -> None:
    """44.54 million with 1000 answers (timm's resnetv2_101); v1 has a norm more in each block's first unit."""
    whole = sum(p.numel() for p in meta(block4=True).parameters()) + 2_049_000
    assert whole == 44_549_160 - 2 * (256 + 512 + 1024 + 2048)
    assert 27.4e6 < sum(p.numel() for p in meta().parameters()) < 27.6e6


@pytest.mark.parametrize(
    ("stride", "height", "width", "shape"),
    [
        *((8, 96, 96, (12, 12)), (8, 256, 256, (32, 32)), (8, 240, 320, (30, 40)), (8, 224, 224, (28, 28))),
        *((16, 224, 224, (14, 14)), (16, 228, 304, (15, 19))),
    ],
)
def test_maps_have_the_published_sizes(stride: int, height: int, width: int, shape: tuple[int, int]) -> None:
    backbone = meta(output_stride=stride)
    assert backbone(torch.empty(1, 3, height, width, device="meta"), ["block3"])["block3"].shape == (1, 1024, *shape)


def test_layers() -> None:
    shapes = meta(output_stride=16, block4=True).shapes(224)
    assert shapes["conv1"] == (64, 112, 112) and shapes["block1"] == (256, 56, 56) and shapes["block2"][1:] == (28, 28)
    assert shapes["block4"] == (2048, 7, 7) and shapes["pool"] == (2048,)
    assert meta().layers == ("conv1", "block1", "block2", "block3", "pool") and meta().shapes()["pool"] == (1024,)
    assert meta(block4=True).shapes(224)["block4"] == (2048, 14, 14)
    assert ResNet101V2(output_stride=16, block4=True).slug == "resnet101-v2-os16-block4"
    assert ResNet101V2().slug == "resnet101-v2"


@pytest.mark.parametrize("sides", [(64, 64), (75, 102)])
def test_dilated_map_contains_the_strided_one(sides: tuple[int, int]) -> None:
    dense = shaken_backbone(SMALL.model_copy(update={"block4": True}))
    strided = rebuild(dense, output_stride=16).double()
    strided.load_state_dict(dense.state_dict())  # rebuilding rounds to float32
    assert strided.options == SMALL.model_copy(update={"block4": True, "output_stride": 16})
    x = noise(2, 3, *sides, dtype=torch.float64)
    with torch.no_grad():
        one, other = dense(x, dense.layers), strided(x, strided.layers)
    for layer in ("block3", "block4"):
        assert one[layer].shape != other[layer].shape
        assert torch.allclose(one[layer][..., ::2, ::2], other[layer], rtol=1e-6, atol=1e-8), layer
    assert torch.equal(one["block2"], other["block2"])


def textbook(backbone: Backbone, x: Tensor) -> dict[str, Tensor]:
    """He et al.'s units, each with its own norm and ReLU first, and the norm at the end."""

    def norm(x: Tensor, module: nn.Module) -> Tensor:
        assert isinstance(module, nn.BatchNorm2d)
        mean, var = module.running_mean, module.running_var
        assert mean is not None and var is not None
        scale = module.weight / torch.sqrt(var + module.eps)
        return torch.clamp(x * scale.view(-1, 1, 1) + (module.bias - mean * scale).view(-1, 1, 1), min=0)

    found = {}
    x = F.conv2d(x, backbone.get_submodule("conv1").weight, stride=2, padding=3)  # type: ignore[arg-type]
    x = F.max_pool2d(x, 3, 2, 1)
    for number in (1, 2, 3):
        units = backbone.get_submodule(f"block{number}")
        assert isinstance(units, nn.Sequential)
        for place, unit in enumerate(units):
            assert isinstance(unit, Unit)
            stride = 2 if number > 1 and place == 0 else 1
            own = backbone.get_submodule(f"norm{number - 1}") if place == 0 else unit.before[0]  # type: ignore[index]
            before = norm(x, own)
            y = F.conv2d(before, unit.branch[0].weight)  # type: ignore[arg-type]
            y = F.conv2d(norm(y, unit.branch[1]), unit.branch[3].weight, stride=stride, padding=1)  # type: ignore[arg-type]
            y = F.conv2d(norm(y, unit.branch[4]), unit.branch[6].weight)  # type: ignore[arg-type]
            x = y + (F.conv2d(before, unit.shortcut.weight, stride=stride) if unit.shortcut else x)
        found[f"block{number}"] = norm(x, backbone.get_submodule(f"norm{number}"))
    return found


def test_units_match_a_plain_implementation() -> None:
    backbone = shaken_backbone(SMALL.model_copy(update={"output_stride": 16}))
    x = noise(2, 3, 64, 64, seed=2, dtype=torch.float64)
    with torch.no_grad():
        found, wanted = backbone(x, backbone.layers), textbook(backbone, x)
    for layer, value in wanted.items():
        assert torch.allclose(found[layer], value, rtol=1e-6, atol=1e-8), layer
    assert torch.allclose(found["pool"], wanted["block3"].mean((2, 3)), rtol=1e-6, atol=1e-8)


def test_resnet_v2_all_parameters_get_gradients() -> None:
    backbone = build_backbone(SMALL, include_top=True).train()
    x = noise(2, 3, 64, 64, seed=3)
    backbone(x)["pool"].square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("block4", [False, True])
def test_write_and_read_model(tmp_path: Path, block4: bool) -> None:
    backbone = shaken_backbone(SMALL.model_copy(update={"block4": block4, "output_stride": 16})).float()
    with WorkDir("pretext", tmp_path / "m" / "manifest.json", "{}", {}) as work:
        work.finish(write_model(tmp_path / "m", backbone, "imagenet", {}))
    model = read_model(work.output)
    assert model.backbone.options == backbone.options and model.backbone.layers == backbone.layers
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.backbone(x)["pool"], backbone(x)["pool"])


def test_random_features_are_of_order_one() -> None:
    backbone = build_backbone(SMALL.model_copy(update={"block4": True}), include_top=True).eval()
    x = noise(2, 3, 64, 64, seed=3)
    with torch.no_grad():
        for layer, value in backbone(x, backbone.layers).items():
            assert layer == "pool" or 0.3 < float(value.std()) < 10, layer
