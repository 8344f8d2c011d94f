"""Every backbone against torchvision's own network or the published numbers."""

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from ssltransfer.config.backbones import (
    BACKBONES,
    AlexNet,
    AlexNetDeepCluster,
    BackboneOptions,
    CaffeNet,
    MobileNetV2,
    ResNet18,
    ResNet50,
    ResNet50V2,
    RevNet50,
    Vgg16,
)
from ssltransfer.config.backbones.libraries import LibraryModel
from ssltransfer.models.backbone import BACKBONES as REGISTRY
from ssltransfer.models.backbone import Backbone, LayerError, scaled
from ssltransfer.models.build import build_backbone
from ssltransfer.models.state_dicts import load_tensors
from tests.helpers.networks import shaken

OPTIONS: list[BackboneOptions] = [
    kind.model_validate({}) for kind in BACKBONES if kind.is_network and not issubclass(kind, LibraryModel)
]
OPTIONS += [AlexNetDeepCluster(sobel=True), Vgg16(bn=False), ResNet50V2(embed_dim=64), ResNet18(embed_dim=64)]
OPTIONS += [MobileNetV2(embed_dim=64)]
SMALL = [option.model_copy(update={"width_mult": 0.125, "img_size": 64}) for option in OPTIONS]
names = pytest.mark.parametrize


@names("kind", BACKBONES)
def test_every_backbone_is_registered(kind: type[BackboneOptions]) -> None:
    assert issubclass(REGISTRY[kind], Backbone)


def test_alexnets_do_not_import_torchvision() -> None:
    code = (
        "import sys; from ssltransfer.config.backbones import CaffeNet; from ssltransfer.models.build import *; "
        "build_backbone(CaffeNet(width_mult=0.1), include_top=False); assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def meta(options: BackboneOptions) -> Backbone:
    with torch.device("meta"):
        return build_backbone(options, include_top=True)


def theirs_on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return torchvision.models.get_model(name)


@names(
    ("options", "name", "head"),
    [
        (AlexNet(), "alexnet", 4_097_000),
        (Vgg16(bn=False), "vgg16", 4_097_000),
        (Vgg16(), "vgg16_bn", 4_097_000),
        (ResNet18(), "resnet18", 513_000),
        (ResNet50(), "resnet50", 2_049_000),
        (MobileNetV2(), "mobilenet_v2", 1_281_000),
    ],
)
def test_tensors_have_torchvision_names_and_shapes(options: BackboneOptions, name: str, head: int):
    theirs = {key: value.shape for key, value in theirs_on_meta(name).state_dict().items()}
    ours = {key: value.shape for key, value in meta(options).state_dict().items()}
    assert ours.items() <= theirs.items()
    assert {key.rsplit(".", 1)[0] for key in theirs.keys() - ours.keys()} in (
        {"fc"},
        {"classifier.6"},
        {"classifier.1"},
    )
    published = {"alexnet": 61_100_840, "vgg16": 138_357_544, "vgg16_bn": 138_365_992}
    published |= {"resnet18": 11_689_512, "resnet50": 25_557_032, "mobilenet_v2": 3_504_872}
    assert sum(p.numel() for p in meta(options).parameters()) == published[name] - head


def test_alexnet_matches_torchvision():
    theirs = torchvision.models.alexnet()
    shaken(theirs).eval()
    ours = build_backbone(AlexNet(), include_top=True).eval()
    assert "prefix ''" in load_tensors(ours, theirs.state_dict(), "x")
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        found = ours(x, ours.layers)
        assert torch.equal(found["conv1"], theirs.features[:2](x))
        assert torch.equal(found["conv4"], theirs.features[:10](x))
        assert torch.equal(found["conv5"], theirs.features[:12](x))
        flat = theirs.avgpool(theirs.features(x)).flatten(1)
        assert torch.equal(found["fc6"], theirs.classifier[:3](flat))
        assert torch.equal(found["fc7"], theirs.classifier[:6](flat))
        assert torch.equal(theirs.classifier[6](found["fc7"]), theirs(x))


@names("bn", [False, True])
def test_vgg16_convolutions_match_torchvision(bn: bool):
    vgg = torchvision.models.vgg
    features = vgg.make_layers(vgg.cfgs["D"], batch_norm=bn)
    shaken(features).eval()
    ours = build_backbone(Vgg16(bn=bn), include_top=False).eval()
    load_tensors(ours, {f"features.{key}": value for key, value in features.state_dict().items()}, "x")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found = ours(x, ["conv4_3", "conv5_3"])
        pools = [i for i, part in enumerate(features) if isinstance(part, nn.MaxPool2d)]
        assert torch.equal(found["conv4_3"], features[: pools[3]](x))
        assert torch.equal(found["conv5_3"], features[: pools[4]](x))


@pytest.mark.slow
@names("bn", [False, True])
def test_vgg16_logits_match_torchvision(bn: bool):
    theirs: Any = torchvision.models.get_model("vgg16_bn" if bn else "vgg16")
    shaken(theirs).eval()
    ours = build_backbone(Vgg16(bn=bn), include_top=True).eval()
    load_tensors(ours, theirs.state_dict(), "x")
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(theirs.classifier[6](ours(x)["fc7"]), theirs(x))


@names(("options", "name"), [(ResNet18(), "resnet18"), (ResNet50(), "resnet50")])
def test_resnets_match_torchvision(options: BackboneOptions, name: str):
    theirs: Any = torchvision.models.get_model(name)
    shaken(theirs).eval()
    ours = build_backbone(options, include_top=True).eval()
    load_tensors(ours, theirs.state_dict(), "x")
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        found = ours(x, ours.layers)
        deep = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for number in range(1, 5):
            deep = theirs.get_submodule(f"layer{number}")(deep)
            assert torch.equal(found[f"block{number}"], deep)
        assert torch.equal(theirs.fc(found["pool"]), theirs(x))


def test_caffenet_has_the_published_sizes():
    backbone = meta(CaffeNet())
    assert sum(p.numel() for p in backbone.parameters()) == 60_965_224 - 4_097_000
    shapes = backbone.shapes()
    sizes = {"conv1": (96, 55, 55), "conv2": (256, 27, 27), "conv3": (384, 13, 13), "conv4": (384, 13, 13)}
    assert shapes == sizes | {"conv5": (256, 13, 13), "fc6": (4096,), "fc7": (4096,)}
    assert backbone.get_submodule("fc6").in_features == 256 * 6 * 6


def test_caffenet_on_tiles_has_the_published_sizes():
    tiles = build_backbone(CaffeNet().for_tiles(None), include_top=False)
    sizes = {"conv1": (96, 27, 27), "conv2": (256, 13, 13), "conv3": (384, 6, 6), "conv4": (384, 6, 6)}
    assert tiles.shapes(64) == sizes | {"conv5": (256, 6, 6)}


@names("kind", [ResNet18, ResNet50, ResNet50V2, RevNet50])
def test_tile_resnets_have_the_strides_of_kolesnikov(kind: Callable[..., BackboneOptions]):
    shapes = build_backbone(kind(width_mult=0.125).for_tiles(None), include_top=False).shapes(64)
    assert [shapes[name][-1] for name in ("conv1", "block1", "block2", "block3", "block4")] == [64, 32, 16, 8, 8]


@names("options", SMALL, ids=lambda o: o.slug)
def test_tile_backbone_has_the_same_tensors(options: BackboneOptions):
    tiles = build_backbone(options.for_tiles(None), include_top=False, seed=3)
    own = build_backbone(options, include_top=False, seed=4)
    own.load_state_dict(tiles.state_dict())
    assert own.options == options
    again = build_backbone(options, include_top=False, seed=3)
    assert all(torch.equal(own.state_dict()[key], value) for key, value in again.state_dict().items())
    if options.patch_overrides:
        stride = tiles.get_submodule(first_convolution(tiles)).stride
        assert (
            stride == (options.patch_overrides["stem_stride"],) * 2
            and stride != own.get_submodule(first_convolution(own)).stride
        )


def first_convolution(backbone: Backbone) -> str:
    return next(name for name, part in backbone.named_modules() if isinstance(part, nn.Conv2d))


@names("options", SMALL, ids=lambda o: o.slug)
def test_forward_stops_after_the_last_requested_layer(options: BackboneOptions):
    backbone = build_backbone(options, include_top=True).eval()
    ran: list[str] = []
    for name, part in backbone.named_modules():
        if not list(part.children()):
            part.register_forward_hook(lambda _, __, ___, name=name: ran.append(name))
    x = torch.randn(1, 3, 64, 64)
    counts = []
    for layer in backbone.layers:
        ran.clear()
        found = backbone(x, [layer])
        assert list(found) == [layer]
        counts.append(list(ran))
    for before, after in pairwise(counts):
        assert len(before) < len(after) and after[: len(before)] == before
    leaves = [name for name, part in backbone.named_modules() if not list(part.children())]
    assert set(leaves) - set(counts[-1]) <= {"avgpool"}


# Layers that no ReLU ends: their ReLU comes after pooling, in the next unit, or not at all.
BARE = {
    "resnet101-v2": ("conv1",),
    "resnet18": ("representation",),
    "resnet50-v2": ("conv1", "representation"),
    "revnet50": ("conv1", "block1", "block2", "block3"),
    "mobilenet-v2": ("block1", "block2", "block3", "block4", "representation"),
}


@names("options", SMALL, ids=lambda o: o.slug)
def test_forward_of_one_or_many_layers_agrees_with_shapes(options: BackboneOptions):
    backbone = build_backbone(options, include_top=True).eval()
    x = torch.randn(2, 3, 64, 64)
    together = backbone(x, backbone.layers)
    for layer, shape in backbone.shapes().items():
        assert torch.equal(backbone(x, [layer])[layer], together[layer])
        assert tuple(together[layer].shape[1:]) == shape
        if layer not in BARE.get(options.name, ()):
            assert (together[layer] >= 0).all() and (together[layer] > 0).any()  # after its ReLU
    assert torch.equal(backbone(x)[backbone.layers[-1]], together[backbone.layers[-1]])
    assert backbone.training is False


@names("options", OPTIONS, ids=lambda o: o.slug)
def test_width_mult_scales_the_channels_of_every_layer(options: BackboneOptions):
    full, half = meta(options).shapes(), meta(options.model_copy(update={"width_mult": 0.5})).shapes()
    kept = {"representation": 1}
    if options.name == "mobilenet-v2":
        # torchvision's rounding never takes off more than a tenth; 1280 stay 1280.
        assert half.pop("block1")[0] == 16 and full.pop("block1")[0] == 24
        kept |= {"conv18": 1, "pool": 1}
    assert {name: (shape[0] // kept.get(name, 2), *shape[1:]) for name, shape in full.items()} == half


@names("size", [64, 96, 224, 227, 256])
@names("options", OPTIONS, ids=lambda o: o.slug)
def test_map_sides_follow_from_the_strides(options: BackboneOptions, size: int):
    shapes = meta(options.model_copy(update={"width_mult": 0.125, "img_size": size})).shapes()
    assert set(options.spatial_layers) == {name for name, shape in shapes.items() if len(shape) == 3}
    if "block4" in shapes:
        halved = {"vgg19-bn": (1, 2, 4, 8, 16)}.get(options.name, (2, 4, 8, 16, 32))
        floor = options.name == "vgg19-bn"
        for name, stride in zip(("conv1", "block1", "block2", "block3", "block4"), halved, strict=True):
            assert shapes[name][1:] == (size // stride if floor else -(-size // stride),) * 2


def test_scaled_rounds_to_multiples_of_eight():
    assert [scaled(c, 0.1) for c in (64, 96, 384, 4096)] == [8, 8, 40, 408]
    assert scaled(96, 0.01) == 8 and scaled(96, 1.0) == 96 and scaled(96, 4.0) == 384


@names("size", [64, 95, 96, 227])
@names("stride", [1, 2, 4])
def test_caffenet_accepts_any_img_size(size: int, stride: int):
    options = CaffeNet(width_mult=0.1, img_size=size, stem_stride=stride)
    assert build_backbone(options, include_top=True)(torch.zeros(1, 3, size, size))["fc7"].shape == (1, 408)


def test_build_backbone_is_a_function_of_the_seed():
    torch.manual_seed(1)
    one = build_backbone(SMALL[0], include_top=True, seed=7).state_dict()
    state = torch.random.get_rng_state()
    two = build_backbone(SMALL[0], include_top=True, seed=7).state_dict()
    other = build_backbone(SMALL[0], include_top=True, seed=8).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_forward_refuses_unknown_layers():
    backbone = build_backbone(SMALL[0], include_top=False)
    with pytest.raises(LayerError, match="caffenet: no layer 'fc6'; it has conv1, conv2, conv3, conv4, conv5"):
        backbone(torch.zeros(1, 3, 64, 64), ["fc6"])
