"""MobileNetV2 against torchvision's own."""

from itertools import pairwise

import pytest
import torch
from torchvision.models.mobilenetv2 import mobilenet_v2

from ssltransfer.config.backbones import MobileNetV2
from ssltransfer.models.build import build_backbone
from ssltransfer.models.state_dicts import load_tensors


@pytest.mark.parametrize("width", [0.35, 1.0, 1.4])
def test_layers_match_torchvision(width: float) -> None:
    torch.manual_seed(1)
    theirs = mobilenet_v2(width_mult=width)
    for part in theirs.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.7, 1.3)
            torch.nn.init.normal_(part.bias, 0, 0.1)
    theirs.eval()
    ours = build_backbone(MobileNetV2(width_mult=width, img_size=64), include_top=True).eval()
    assert load_tensors(ours, theirs.state_dict(), "x").endswith("prefix '', 2 left in the file")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = ours(x, ours.layers)
        # Where torchvision's own features are halved next, or end.
        each = [theirs.features[: place + 1](x) for place in range(19)]
        ends = [value for value, after in pairwise(each) if after.shape[-1] < value.shape[-1]]
        # conv1 is followed by a unit of its own side, which belongs to block1.
        for layer, value in zip(("block1", "block2", "block3"), ends[-3:], strict=True):
            assert torch.equal(found[layer], value), layer
        for layer, place in (("conv1", 0), ("block4", 17), ("conv18", 18)):
            assert torch.equal(found[layer], each[place])
        assert torch.equal(theirs.classifier(found["pool"]), theirs(x))
    assert (found["conv1"] >= 0).all() and float(found["conv18"].max()) <= 6 and (found["block4"] < 0).any()


def test_layers_and_tile_strides() -> None:
    with torch.device("meta"):
        shapes = build_backbone(MobileNetV2(), include_top=True).shapes()
    assert shapes == {
        **{"conv1": (32, 112, 112), "block1": (24, 56, 56), "block2": (32, 28, 28), "block3": (96, 14, 14)},
        **{"block4": (320, 7, 7), "conv18": (1280, 7, 7), "pool": (1280,)},
    }
    tiles = build_backbone(MobileNetV2(width_mult=0.25).for_tiles(None), include_top=False)
    assert tiles.shapes(64)["block4"][1:] == (4, 4)
