import numpy as np
import pytest
import torch
from skimage import color
from torchvision.models import AlexNet_Weights
from torchvision.transforms.v2 import functional as tv

from ssltransfer.models.normalize import normalize

IMAGES = torch.randint(0, 256, (4, 3, 9, 11), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_imagenet_matches_torchvision_weights():
    preset = AlexNet_Weights.IMAGENET1K_V1.transforms()
    expected = tv.normalize(IMAGES.float() / 255, preset.mean, preset.std)
    assert torch.allclose(normalize(IMAGES, "imagenet"), expected, atol=1e-6)


def test_half_and_none_by_hand():
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert normalize(ends, "half")[0, 0, 0].tolist() == [-1, 1]
    assert normalize(ends, "none")[0, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize(("rule", "axes"), [("per-image", (1, 2, 3)), ("per-channel", (2, 3))])
def test_normalize_per_image_and_per_channel_standardizes(rule: str, axes: tuple[int, ...]):
    found = normalize(IMAGES, rule)  # type: ignore[arg-type]
    plain = IMAGES.numpy().astype(np.float64)
    expected = (plain - plain.mean(axes, keepdims=True)) / plain.std(axes, keepdims=True)
    assert np.allclose(found, expected, atol=1e-5)
    assert torch.allclose(normalize(IMAGES[2:3], rule), found[2:3], atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["per-image", "per-channel"])
def test_blank_images_become_zeros(rule: str):
    blank = torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)
    assert normalize(blank, rule).abs().max() < 1e-4  # type: ignore[arg-type]


def test_caffe_is_bgr_minus_the_published_means():
    pixel = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    assert normalize(pixel, "caffe").flatten().tolist() == [30 - 104, 20 - 117, 10 - 123]


def test_lab_lightness_has_no_color():
    found = normalize(IMAGES, "lab-lightness")
    expected = color.rgb2lab(IMAGES.permute(0, 2, 3, 1).numpy())[..., 0] / 50 - 1
    assert np.abs(found.numpy() - expected[:, None]).max() < 1e-4
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert normalize(ends, "lab-lightness")[0, 0, 0].tolist() == pytest.approx([-1, 1], abs=1e-5)
