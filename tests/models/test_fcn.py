"""Scores are aligned with the pixels: against the published numbers, ramps, and torch's own interpolation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    Vgg16,
    Vgg19BN,
)
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.fcn import Fcn, Grid, Window
from ssltransfer.models.fuse_bn import fuse_conv_bn

SMALL = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2)


def made(options: BackboneOptions, classes: int = 3, padding: int = 100) -> Fcn:
    return Fcn(build_backbone(options, include_top=True, seed=4), classes, padding=padding).eval()


@pytest.mark.parametrize(
    ("options", "stride", "kernel", "crop"),
    [
        # voc-fcn-alexnet/train.prototxt and voc-fcn32s/train.prototxt.
        (CaffeNet(width_mult=0.125), 32, 63, 18),
        (AlexNet(width_mult=0.125), 32, 63, 18),
        (Vgg16(width_mult=0.125, bn=False), 32, 64, 19),
        (ResNet18(width_mult=0.125), 32, 63, 31),
        (ResNet50V2(width_mult=0.125), 32, 63, 31),
        (ResNet101V2(width_mult=0.125), 8, 15, 7),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_grid_has_the_published_strides_kernels_and_crops(
    options: BackboneOptions, stride: int, kernel: int, crop: int
) -> None:
    grid = made(options).grid
    assert (grid.stride, grid.kernel, grid.crop) == (stride, kernel, crop)


@pytest.mark.parametrize("ceil", [False, True])
def test_window_cells_match_torch(ceil: bool) -> None:
    for kernel, stride, padding in ((3, 2, 0), (3, 2, 1), (2, 2, 0), (2, 2, 1), (5, 3, 2), (1, 1, 0)):
        pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
        for length in range(kernel, 20):
            found = pool(torch.zeros(1, 1, length, length)).shape[-1]
            assert Window(kernel, stride, padding, ceil).cells(length) == found


def averaging(net: Fcn) -> None:
    """Make every layer a mean over its window: what comes out for a ramp is where its window's center lies."""
    for norm in [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]:
        norm.eps = 0.0  # fresh ones change nothing then
    if net.backbone.options.can_fuse_bn:
        fuse_conv_bn(net)
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.MaxPool2d):
            mean = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            net.set_submodule(name, mean)
        elif isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.ReLU6):
            net.set_submodule(name, nn.ReLU())


@pytest.mark.parametrize(
    "options",
    [
        CaffeNet(width_mult=0.02, bn=True),
        CaffeNet(width_mult=0.02, img_size=64, stem_stride=2, bn=True),
        AlexNet(width_mult=0.02),
        Vgg16(width_mult=0.02),
        ResNet18(width_mult=0.02),
        ResNet18(width_mult=0.02, stem_stride=1),
        AlexNetBN(width_mult=0.02),
        AlexNetDeepCluster(width_mult=0.02),
        Vgg19BN(width_mult=0.02),
        ResNet50V2(width_mult=0.02),
        ResNet50V2(width_mult=0.02, output_stride=8, block4=False),
        RevNet50(width_mult=0.02),
        RevNet50(width_mult=0.02, block4_stride=1),
        MobileNetV2(width_mult=0.05),
    ],
    ids=lambda options: options.slug,
)
def test_fcn_is_aligned_with_the_image(options: BackboneOptions) -> None:
    net = made(options).double()
    averaging(net)
    # Half of the largest receptive field, and a stride.
    reach = 300 if options.name == "revnet50" else 255
    height, width = 2 * reach + 50, 2 * reach + 90
    across = torch.arange(width, dtype=torch.float64).expand(height, width)
    down = torch.arange(height, dtype=torch.float64)[:, None].expand(height, width)
    with torch.no_grad():
        even, *ramps = (net(x.expand(1, 3, height, width))[0, 0] for x in (torch.ones_like(across), across, down))
    inner = (slice(reach, height - reach), slice(reach, width - reach))
    assert even[inner].numel() > 1000 and float(even[inner].std()) < 1e-9 * float(even[inner].mean())
    for found, ramp in zip(ramps, (across, down), strict=True):
        torch.testing.assert_close((found / even)[inner], ramp[inner], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        CaffeNet(width_mult=0.125),
        SMALL,
        AlexNet(width_mult=0.125),
        AlexNet(width_mult=0.125, img_size=96),
        Vgg16(width_mult=0.125, img_size=64, bn=False),
        Vgg16(width_mult=0.06, img_size=256),
        AlexNetBN(width_mult=0.125, img_size=96),
    ],
    ids=lambda options: options.slug,
)
def test_fcn_fc7_equals_the_backbones_at_img_size(options: BackboneOptions) -> None:
    backbone = build_backbone(options, include_top=True, seed=4).eval()
    net = made(options, padding=120 if options.img_size > 240 else 100)
    own, padded = (next(m for m in one.modules() if isinstance(m, nn.Conv2d)) for one in (backbone, net))
    padded.padding = own.padding
    x = torch.randn(2, 3, options.img_size, options.img_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = backbone(x)["fc7"], net.head(net.backbone(x)[net.layer])
    assert found.shape == (*wanted.shape, 1, 1) and float(wanted.std()) > 0.01
    torch.testing.assert_close(found[:, :, 0, 0], wanted, rtol=1e-4, atol=1e-5)


def test_upsample_with_an_even_kernel_matches_torch() -> None:
    net = made(Vgg16(width_mult=0.02, bn=False))
    scores = torch.randn(1, 3, 6, 7, generator=torch.Generator().manual_seed(1))
    found = net.upsample(scores, 170, 200)
    wanted = F.interpolate(scores, scale_factor=32, mode="bilinear", align_corners=False)
    # Half a stride lies before the first cell's center there, 63 / 2 pixels here, of which 19 are cropped.
    inner = slice(30, 150)
    torch.testing.assert_close(found[..., inner, inner], wanted[..., 33:153, 33:153])


def test_upsample_with_an_odd_kernel_by_hand() -> None:
    net = made(ResNet18(width_mult=0.02))
    scores: Tensor = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    found = net.upsample(scores, 128, 128)
    torch.testing.assert_close(found[..., ::32, ::32], scores)
    torch.testing.assert_close(found[..., ::32, 16:112:32], (scores[..., 1:] + scores[..., :-1]) / 2)
    # Behind the last cell all scores fade alike.
    torch.testing.assert_close(found[..., 96, 96 + 16], scores[..., 3, 3] / 2)


@pytest.mark.parametrize(
    "options", [SMALL, AlexNet(width_mult=0.02), Vgg16(width_mult=0.02, bn=False), ResNet18(width_mult=0.02)]
)
def test_fcn_accepts_any_image_size(options: BackboneOptions) -> None:
    net = made(options, classes=2)
    for height, width in ((1, 1), (33, 64), (70, 31)):
        with torch.no_grad():
            assert net(torch.zeros(1, 3, height, width)).shape == (1, 2, height, width)


def test_fcn_scores_start_at_zero_and_all_layers_learn() -> None:
    net = made(SMALL)
    assert not net(torch.randn(1, 3, 40, 40)).any()
    assert "kernel" not in net.state_dict() and "kernel" not in dict(net.named_parameters())
    assert not any(isinstance(module, nn.Linear) for module in net.modules())


def test_fcn_refuses_too_little_padding() -> None:
    with pytest.raises(LayerError, match=r"the edges of an image; raise `padding` \(60\)"):
        made(CaffeNet(width_mult=0.02), padding=60)
    with pytest.raises(LayerError, match="caffenet without fc6, fc7"):
        Fcn(build_backbone(SMALL, include_top=False), 3)


def test_grid_covers_all_lengths_if_it_covers_two_strides() -> None:
    for padding in (76, 82, 100):
        grid = Grid((Window(11, 4, padding), *[Window(3, 2, 0, True)] * 3, Window(6, 1, 0)))
        few = all(map(grid.covers, range(1, 65)))
        assert few == all(map(grid.covers, range(1, 1500)))
