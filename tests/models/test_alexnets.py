"""RotNet's and DeepCluster's AlexNets against plain versions of what was released."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from networks import shaken
from torch import Tensor, nn

from ssltransfer.config.backbones import AlexNet, AlexNetBN, AlexNetDeepCluster
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone
from ssltransfer.models.state_dicts import load_tensors


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


def test_rotnets_file_is_read_and_computes_the_same() -> None:
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


def test_deepclusters_sees_sobel_gradients() -> None:
    options = AlexNetDeepCluster(width_mult=0.125, img_size=96, sobel=True)
    backbone = build_backbone(options, include_top=True).double().eval()
    x = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    with torch.no_grad():
        wanted = backbone.features[:3](sobel_by_hand(x))  # type: ignore[index]
        torch.testing.assert_close(backbone(x, ["conv1"])["conv1"], wanted)
        tinted = x + torch.tensor([0.5, -0.2, -0.3], dtype=torch.float64).view(3, 1, 1)
        torch.testing.assert_close(backbone(tinted)["fc7"], backbone(x)["fc7"])  # color means nothing to it
    assert "kernels" not in backbone.state_dict()


def test_deepclusters_channels_and_size() -> None:
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


def test_torchvisions_alexnet_is_as_it_was() -> None:
    backbone: Backbone = build_backbone(AlexNet(width_mult=0.125), include_top=True)
    places = [int(name.split(".")[1]) for name in backbone.state_dict() if name.startswith("features")]
    assert sorted(set(places)) == [0, 3, 6, 8, 10]
