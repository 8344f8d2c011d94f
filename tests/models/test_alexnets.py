"""AlexNets of RotNet, DeepCluster and Caffe against plain versions of the released networks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.backbones import AlexNet, AlexNetBN, AlexNetDeepCluster, CaffeNet
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone
from ssltransfer.models.state_dicts import load_tensors
from tests.helpers.networks import shaken


def rotnet() -> nn.Module:
    """Blocks of FeatureLearningRotNet's AlexNet, in its order."""

    def block(*shape: int, **more: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(*shape, **more), nn.BatchNorm2d(shape[1]), nn.ReLU())  # type: ignore[arg-type]

    def fc(inputs: int) -> list[nn.Module]:
        return [nn.Linear(inputs, 4096, bias=False), nn.BatchNorm1d(4096), nn.ReLU()]

    network = nn.Module()
    network._feature_blocks = nn.ModuleList(
        [
            block(3, 64, 11, stride=4, padding=2),
            nn.MaxPool2d(3, 2),
            block(64, 192, 5, padding=2),
            nn.MaxPool2d(3, 2),
            block(192, 384, 3, padding=1),
            block(384, 256, 3, padding=1),
            block(256, 256, 3, padding=1),
            nn.MaxPool2d(3, 2),
            nn.Sequential(nn.Flatten(), *fc(9216), *fc(4096)),
            nn.Sequential(nn.Linear(4096, 4)),
        ]
    )
    return network


def test_alexnet_bn_matches_rotnet_and_loads_its_file() -> None:
    torch.manual_seed(0)
    theirs = shaken(rotnet()).eval()
    ours = build_backbone(AlexNetBN(), include_top=True).eval()
    said = load_tensors(ours, theirs.state_dict(), "rotnet.pth")
    assert said.endswith("prefix '', 2 left in the file")  # the classifier
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) - 4 * 4097
    assert sum(p.numel() for p in ours.parameters()) == 57_014_336
    x = torch.randn(2, 3, 224, 224)
    places = {"conv1": 1, "conv2": 3, "conv3": 5, "conv4": 6, "conv5": 7, "fc7": 9}
    with torch.no_grad():
        found = ours(x, ours.layers)
        for layer, place in places.items():
            wanted = x
            for block in list(theirs._feature_blocks)[:place]:  # type: ignore[arg-type]
                wanted = block(wanted)
            assert torch.equal(found[layer], wanted), layer
        assert torch.equal(ours(x, ["fc6"])["fc6"], theirs._feature_blocks[8][:4](list_to(theirs, x)))  # type: ignore[index]


def list_to(theirs: nn.Module, x: Tensor) -> Tensor:
    for block in list(theirs._feature_blocks)[:8]:  # type: ignore[arg-type]
        x = block(x)
    return x


def sobel_by_hand(x: Tensor) -> Tensor:
    gray = F.pad(x.mean(1), (1, 1, 1, 1))

    def at(dy: int, dx: int) -> Tensor:
        return gray[:, 1 + dy : gray.shape[1] - 1 + dy, 1 + dx : gray.shape[2] - 1 + dx]

    across = sum(weight * (at(dy, -1) - at(dy, 1)) for dy, weight in ((-1, 1), (0, 2), (1, 1)))
    down = sum(weight * (at(-1, dx) - at(1, dx)) for dx, weight in ((-1, 1), (0, 2), (1, 1)))
    return torch.stack([across, down], dim=1)  # type: ignore[list-item]


def test_alexnet_deepcluster_computes_sobel_gradients() -> None:
    options = AlexNetDeepCluster(width_mult=0.125, img_size=96, sobel=True)
    backbone = build_backbone(options, include_top=True).double().eval()
    x = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    with torch.no_grad():
        wanted = backbone.features[:3](sobel_by_hand(x))  # type: ignore[index]
        torch.testing.assert_close(backbone(x, ["conv1"])["conv1"], wanted)
        tinted = x + torch.tensor([0.5, -0.2, -0.3], dtype=torch.float64).view(3, 1, 1)
        torch.testing.assert_close(backbone(tinted)["fc7"], backbone(x)["fc7"])  # color means nothing to it
    assert "kernels" not in backbone.state_dict()


def test_alexnet_deepcluster_has_the_published_channels() -> None:
    with torch.device("meta"):
        plain, sobel = (build_backbone(AlexNetDeepCluster(sobel=sobel), include_top=True) for sobel in (False, True))
    convolutions = [part for part in plain.modules() if isinstance(part, nn.Conv2d)]
    assert {c.groups for c in convolutions} == {1}
    assert [c.out_channels for c in convolutions] == [96, 256, 384, 384, 256] and {c.groups for c in convolutions} == {
        1
    }
    shapes = ((3, 96, 11), (96, 256, 5), (256, 384, 3), (384, 384, 3), (384, 256, 3))
    count = sum(i * o * k**2 + 3 * o for i, o, k in shapes) + 9216 * 4096 + 4096 + 4096**2 + 4096
    assert sum(p.numel() for p in plain.parameters()) == count == 58_284_096
    assert sum(p.numel() for p in sobel.parameters()) == count - 96 * 121


def test_alexnet_has_no_batch_norm() -> None:
    backbone: Backbone = build_backbone(AlexNet(width_mult=0.125), include_top=True)
    places = [int(name.split(".")[1]) for name in backbone.state_dict() if name.startswith("features")]
    assert sorted(set(places)) == [0, 3, 6, 8, 10]


def caffe_pool(x: Tensor) -> Tensor:
    """Caffe's 3/2 maximum pooling: ceil((n - 3) / 2) + 1 windows, the last of them cut off by the border."""
    rows, columns = (math.ceil((n - 3) / 2) + 1 for n in x.shape[-2:])
    out = [[x[..., 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].amax((-2, -1)) for j in range(columns)] for i in range(rows)]
    return torch.stack([torch.stack(row, -1) for row in out], -2)


def caffe_lrn(x: Tensor) -> Tensor:
    """x / (1 + 1e-4 / 5 * sum of squares over five channels)^0.75."""
    out = torch.empty_like(x)
    for channel in range(x.shape[1]):
        near = x[:, max(0, channel - 2) : channel + 3].square().sum(1)
        out[:, channel] = x[:, channel] / (1 + 1e-4 / 5 * near) ** 0.75
    return out


def test_caffenet_layers_match_a_plain_loop() -> None:
    backbone = build_backbone(CaffeNet(width_mult=0.25, img_size=95), include_top=True, seed=2).eval()
    weights = dict(backbone.state_dict())
    # Activations of hundreds, for which LRN matters, and biases that are not zero.
    for key, value in weights.items():
        if key.endswith("bias"):
            value.uniform_(-1, 1)
    x = 100 * torch.randn(2, 3, 95, 95)

    def conv(name: str, x: Tensor, **kw: int) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **kw).relu()

    expected = {"conv1": conv("conv1", x, stride=4)}
    expected["conv2"] = conv("conv2", caffe_lrn(caffe_pool(expected["conv1"])), padding=2, groups=2)
    expected["conv3"] = conv("conv3", caffe_lrn(caffe_pool(expected["conv2"])), padding=1)
    expected["conv4"] = conv("conv4", expected["conv3"], padding=1, groups=2)
    expected["conv5"] = conv("conv5", expected["conv4"], padding=1, groups=2)
    flat = caffe_pool(expected["conv5"]).flatten(1)
    expected["fc6"] = F.linear(flat, weights["fc6.weight"], weights["fc6.bias"]).relu()
    expected["fc7"] = F.linear(expected["fc6"], weights["fc7.weight"], weights["fc7.bias"]).relu()

    # The sizes must be ones where rounding up differs from rounding down.
    assert any((side - 3) % 2 for side in (expected["conv1"].shape[-1], expected["conv2"].shape[-1]))
    for name, found in backbone(x, backbone.layers).items():
        assert torch.allclose(found, expected[name], rtol=1e-4, atol=1e-3), name
