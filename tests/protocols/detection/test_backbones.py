import pytest
import torch

from ssltransfer.config.backbones import (
    AlexNet,
    AlexNetBN,
    AlexNetDeepCluster,
    BackboneOptions,
    CaffeNet,
    MobileNetV2,
    ResNet18,
    ResNet50V2,
    ResNet101V2,
    RevNet50,
    Torchvision,
    Vgg16,
    Vgg19BN,
)
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.protocols.detection.backbones import FcBackbone, Res5Backbone, calibrate_bn, norms_of


def model(options: BackboneOptions, *, include_top: bool = True, seed: int = 0) -> PretrainedModel:
    backbone = build_backbone(options, include_top=include_top, seed=seed).eval().requires_grad_(False)
    return PretrainedModel(backbone, "imagenet", "", "it")


CAFFE = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2)
RES = ResNet18(width_mult=0.125, img_size=32)


def body(options: BackboneOptions, reinit_fc: bool = False, **given: object) -> FcBackbone:
    return FcBackbone(model(options, **given), reinit_fc, 0.5, "pool", 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "stride", "side"),
    [
        (CaffeNet(width_mult=0.1), 16, 6),
        (AlexNet(width_mult=0.1), 16, 6),
        (AlexNetBN(width_mult=0.1), 16, 6),
        (AlexNetDeepCluster(width_mult=0.1), 16, 6),
        (Vgg16(width_mult=0.05, bn=False), 16, 7),
        (CAFFE, 8, 3),
    ],
)
def test_fc_backbone_has_published_stride_and_side(options: BackboneOptions, stride: float, side: int) -> None:
    found = body(options)
    assert (found.stride, found.side) == (stride, side)
    assert found.fc6.in_features == found.channels * side**2 and found.dims == found.fc7.out_features


@pytest.mark.parametrize("options", [CaffeNet(width_mult=0.1), AlexNet(width_mult=0.1), AlexNetBN(width_mult=0.1)])
def test_fc_backbone_map_is_aligned(options: BackboneOptions) -> None:
    """With kernels that are their own mirror images, a mirrored image of 16 k + 1 pixels gives the mirrored map."""
    found = body(options).eval()
    with torch.no_grad():
        for weight in found.backbone.parameters():
            if weight.ndim == 4:
                weight.copy_((weight + weight.flip(-1)) / 2)
    x = torch.randn(1, 3, 193, 193, generator=torch.Generator().manual_seed(0))
    assert found(x).shape[-1] == 13
    torch.testing.assert_close(found(x.flip(-1)), found(x).flip(-1), rtol=1e-4, atol=1e-5)


def test_fc_backbone_takes_model_weights() -> None:
    given = model(CAFFE)
    found = FcBackbone(given, False, 0.5, "pool", 0)
    state = given.backbone.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.backbone.state_dict().items())
    assert torch.equal(found.fc6.weight, state["fc6.weight"]) and torch.equal(found.fc7.bias, state["fc7.bias"])
    assert given.backbone.get_submodule("conv1").padding == (0, 0), "the model itself stays"
    fresh = body(CAFFE, True)
    assert not torch.equal(fresh.fc6.weight, state["fc6.weight"])
    assert torch.equal(fresh.backbone.state_dict()["conv5.weight"], state["conv5.weight"])
    convolutions = FcBackbone(model(CAFFE, include_top=False), False, 0.5, "pool", 0)
    assert torch.equal(convolutions.fc6.weight, fresh.fc6.weight), "there is none to take"
    other = FcBackbone(given, True, 0.5, "pool", 1)
    assert not torch.equal(other.fc6.weight, body(CAFFE, True).fc6.weight)


@pytest.mark.parametrize(
    ("options", "layers", "kept"),
    [
        (CAFFE, 0, set()),
        (CAFFE, 1, {"conv1.weight", "conv1.bias"}),
        (CAFFE, 2, {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}),
        (AlexNet(width_mult=0.1, img_size=64), 1, {"features.0.weight", "features.0.bias"}),
        (
            Vgg16(width_mult=0.05, img_size=32, bn=False),
            2,
            {f"features.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")},
        ),
    ],
)
def test_freeze_first_layers(options: BackboneOptions, layers: int, kept: set[str]) -> None:
    found = body(options)
    found.freeze(layers)
    assert {name for name, p in found.backbone.named_parameters() if not p.requires_grad} == kept
    assert all(p.requires_grad for part in (found.fc6, found.fc7) for p in part.parameters())
    with pytest.raises(LayerError, match="`freeze_at: 99`"):
        found.freeze(99)


def test_roi_features_pool_like_caffe() -> None:
    """Corners rounded to the map, both counted in; each of side x side bins the largest of its span."""
    found = body(CAFFE)
    found.vectors = lambda cut: cut.flatten(1)  # type: ignore[method-assign]
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(1, found.channels, 20, 20, generator=generator)
    boxes = torch.tensor([[8.0, 16, 80, 104], [3, 3, 150, 60]])
    got = found.roi_features(maps, boxes).reshape(2, found.channels, 3, 3)
    for row, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        left, top, right, bottom = (int(v / 8 + 0.5) for v in (x1, y1, x2 - 1, y2 - 1))
        for i in range(3):
            for j in range(3):
                down, across = (bottom - top + 1) / 3, (right - left + 1) / 3
                rows = slice(top + int(i * down), top + -int(-(i + 1) * down // 1))
                columns = slice(left + int(j * across), left + -int(-(j + 1) * across // 1))
                torch.testing.assert_close(got[row, :, i, j], maps[0, :, rows, columns].amax((1, 2)))


def test_res5_backbone_equals_network() -> None:
    """A region as large as the map, cut without resampling, gives what the network gives."""
    given = model(RES)
    found = Res5Backbone(given, "align", 0).eval()
    assert (found.stride, found.channels, found.side, found.dims) == (16, 32, 14, 64)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    wanted = given.backbone(x, ["block4"])["block4"].mean((2, 3))
    torch.testing.assert_close(found.vectors(found(x)), wanted)
    for align in (found, Res5Backbone(given, "pool", 0).eval()):
        near = align.roi_features(found(x), torch.tensor([[0.0, 0, 224, 224]]))
        assert float(torch.cosine_similarity(near, wanted)[0].detach()) > 0.95


def test_res5_backbone_without_block4_gets_one_at_stride_16() -> None:
    """Dilation goes: the map of stride 16 is every second value of that of stride 8 (ResNet-101 v2)."""
    given = model(ResNet101V2(width_mult=0.125, img_size=32))
    assert given.backbone.layers[-2:] == ("block3", "pool")
    found = Res5Backbone(given, "align", 0).eval()
    assert (found.stride, found.side, found.dims) == (16, 14, 256)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            found(x), given.backbone(x, ["block3"])["block3"][..., ::2, ::2], rtol=1e-3, atol=1e-3
        )
        settled = calibrate_bn(found, [x])
        assert settled == len(norms_of(found)) and torch.isfinite(found(x)).all()
    assert not torch.equal(
        Res5Backbone(given, "align", 1).backbone.get_parameter("block4.0.shortcut.weight"),
        found.backbone.get_parameter("block4.0.shortcut.weight"),
    )


def test_fc_backbone_fuses_norms_of_fc() -> None:
    given = model(AlexNetBN(width_mult=0.1))
    generator = torch.Generator().manual_seed(2)
    for part in given.backbone.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.running_mean.normal_(0, 0.2, generator=generator)  # type: ignore[union-attr]
            part.running_var.uniform_(0.3, 2, generator=generator)  # type: ignore[union-attr]
            torch.nn.init.uniform_(part.bias, -0.5, 0.5)
    found = FcBackbone(given, False, 0.5, "pool", 0).eval()
    x = torch.randn(2, 3, 224, 224, generator=generator)
    with torch.no_grad():
        cells = given.backbone.get_submodule("_feature_blocks.7")(given.backbone(x, ["conv5"])["conv5"])
        torch.testing.assert_close(found.vectors(cells), given.backbone(x)["fc7"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "stride", "dims"),
    [
        (ResNet50V2(width_mult=0.125, img_size=32), 16, 256),
        (ResNet50V2(width_mult=0.125, img_size=32, last_relu=False, embed_dim=5), 16, 256),
        (RevNet50(width_mult=0.125, img_size=32), 16, 256),
        (MobileNetV2(width_mult=0.25, img_size=32), 16, 1280),
        (Vgg19BN(width_mult=0.1, img_size=32), 8, 48),
    ],
    ids=lambda value: getattr(value, "slug", None),
)
def test_res5_backbone_of_other_networks(options: BackboneOptions, stride: int, dims: int) -> None:
    """What the network itself gives of an image whose map is not resampled, before any representation."""
    given = model(options)
    found = Res5Backbone(given, "align", 0).eval()
    assert (found.stride, found.side, found.dims) == (stride, 14, dims)
    x = torch.randn(1, 3, 14 * stride, 14 * stride, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer = "pool" if "pool" in options.layers else "block4"
        wanted = given.backbone(x, [layer])[layer]
        torch.testing.assert_close(found.vectors(found(x)), wanted if wanted.ndim == 2 else wanted.mean((2, 3)))


def test_res5_backbone_rejects_library_networks() -> None:
    with pytest.raises(LayerError, match="torchvision has no block3 and block4"):
        Res5Backbone(model(Torchvision(model="resnet18", img_size=32)), "align", 0)


def test_res5_backbone_rejects_other_networks() -> None:
    with pytest.raises(LayerError, match="caffenet has no block3 and block4"):
        Res5Backbone(model(CAFFE), "align", 0)


def test_calibrate_bn_sets_only_new_norms() -> None:
    """Norms of a network that has seen images stay; those of a random one normalize these images."""
    found = Res5Backbone(model(RES), "align", 0)
    found.freeze(0)
    found.train()
    assert not any(norm.training for norm in norms_of(found))
    assert not any(p.requires_grad for norm in norms_of(found) for p in norm.parameters())
    images = [torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(k)) * 3 + 1 for k in range(4)]
    seen = []
    last = norms_of(found.backbone.get_submodule("layer3"))[-1]
    last.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    assert calibrate_bn(found, images) == len(norms_of(found)) == 20
    seen.clear()
    for x in images:
        found.eval()(x)
    values = torch.cat([value.flatten(2).transpose(0, 1).flatten(1) for value in seen], dim=1)
    torch.testing.assert_close(values.mean(1), torch.zeros(32), atol=0.1, rtol=0)
    torch.testing.assert_close(values.var(1), torch.ones(32), atol=0.25, rtol=0)
    before = {name: value.clone() for name, value in found.state_dict().items()}
    assert calibrate_bn(found, images) == 0
    assert all(torch.equal(value, before[name]) for name, value in found.state_dict().items())


def test_res5_backbone_initializes_missing_block4() -> None:
    """Only its norms take statistics from images."""
    given = model(RES)
    with torch.no_grad():
        for norm in norms_of(given.backbone):
            norm.get_buffer("running_mean").add_(1)
        for norm in norms_of(given.backbone.get_submodule("layer4")):
            norm.running_mean.zero_()  # type: ignore[union-attr]
    found = Res5Backbone(given, "align", 0)
    kept = found.backbone.get_submodule("layer3").state_dict()
    kept = {name: value.clone() for name, value in kept.items()}
    assert calibrate_bn(found, [torch.randn(1, 3, 64, 64)]) == 5
    now = found.backbone.get_submodule("layer3").state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in now.items())
