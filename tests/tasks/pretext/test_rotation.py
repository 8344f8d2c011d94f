import math

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from ssltransfer.config.backbones import CaffeNet, ResNet18
from ssltransfer.config.tasks import Rotation
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import RandomResizedCrop, ResizeCenterCrop
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.pretext.rotation import RotationTask

BACKBONE = CaffeNet(width_mult=0.125, img_size=48, stem_stride=2)


def task(augment: str = "random-resized-crop") -> RotationTask:
    return RotationTask(Rotation.model_validate({"augment": augment, "hidden_dim": 16}), BACKBONE, 0)


def images(n: int, side: int = 48) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def test_rotation_batch_has_all_four_rotations():
    network = task().eval()
    source = images(5)
    inputs, label = network.inputs(source, SampleRNG(0, 0, torch.arange(5)))
    assert inputs.shape == (20, 3, 48, 48) and label.tolist() == [0, 1, 2, 3] * 5
    for row, angle in enumerate([0, 90, 180, 270]):
        turned = normalize(torch.stack([tv.rotate(image, angle) for image in source]), "imagenet")
        assert torch.allclose(inputs[row::4], turned, atol=1e-6)


def test_rotation_flips_before_it_rotates():
    """Mirrored or not, rotation k is k quarter turns of rotation 0; half of the images are mirrored."""
    network = task().train()
    source = images(200)
    inputs, _ = network.inputs(source, SampleRNG(0, 0, torch.arange(200)))
    upright = inputs[::4]
    for k in (1, 2, 3):
        assert torch.equal(inputs[k::4], torch.rot90(upright, k, dims=(-2, -1)))
    plain = normalize(source, "imagenet")
    same = (upright == plain).flatten(1).all(1)
    flipped = (upright == plain.flip(-1)).flatten(1).all(1)
    assert (same ^ flipped).all() and 0.35 < same.float().mean() < 0.65


@pytest.mark.parametrize(
    ("augment", "rule", "least"), [("random-resized-crop", "imagenet", 0.08), ("inception", "half", 0.05)]
)
def test_rotation_augmentations_match_the_papers(augment: str, rule: str, least: float):
    network = task(augment)
    assert network.normalization == rule and network.chance_loss == math.log(4)
    cut = network.transform
    assert isinstance(cut, RandomResizedCrop) and (cut.size, cut.scale) == (48, (least, 1.0))
    view = network.val_transform
    assert (
        isinstance(view, ResizeCenterCrop)
        and view.size == 48
        and view.size / view.short_side == pytest.approx(0.887, abs=0.02)
    )
    inputs, _ = network.inputs(images(8), SampleRNG(0, 0, torch.arange(8)))
    if rule == "half":
        assert inputs.min() >= -1 and inputs.max() <= 1 and inputs.min() < -0.9


def test_rotation_crop_positions_are_uniform():
    network = task("crop")
    assert network.transform == ResizeCenterCrop(BACKBONE.short_side, BACKBONE.short_side)
    source = images(30, BACKBONE.short_side)
    inputs, _ = network.inputs(source, SampleRNG(0, 0, torch.arange(30)))
    assert inputs.shape == (120, 3, 48, 48)
    plain = normalize(source, "imagenet")
    for one, image in zip(inputs[::4], plain, strict=True):
        windows = image.unfold(1, 48, 1).unfold(2, 48, 1).permute(1, 2, 0, 3, 4)
        both = torch.cat([windows, windows.flip(-1)])
        assert (both == one).flatten(2).all(2).any()


def test_rotation_head_of_resnet_is_linear():
    network = RotationTask(Rotation(), ResNet18(width_mult=0.125, img_size=48), 0)
    assert [(name, tuple(p.shape)) for name, p in network.head.named_parameters()] == [
        ("0.weight", (4, 64)),
        ("0.bias", (4,)),
    ]


def test_rotation_head_of_alexnet_is_rotnets():
    with torch.device("meta"):
        network = RotationTask(Rotation(), CaffeNet(), 0)
    linears = [part for part in network.head.modules() if isinstance(part, torch.nn.Linear)]
    assert [(p.in_features, p.out_features, p.bias is None) for p in linears] == [
        (9216, 4096, True),
        (4096, 4096, True),
        (4096, 4, False),
    ]
