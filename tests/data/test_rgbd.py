"""Image and depth stay together: resized, cut, enlarged, turned and mirrored alike."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import rotate

from ssltransfer.artifacts.index import Index, Targets
from ssltransfer.data.image_cache import read_sample
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.rgbd import RgbdCenterCrop, RgbdResize, augment, bilinear_sample, channel_jitter
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import resize


def index_of(folder: Path, *sides: tuple[int, int]) -> Index:
    """Images of these heights and widths, with depth that tells its own place: 1 + row + column / 1000."""
    rng = np.random.default_rng(0)
    for place, (height, width) in enumerate(sides):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{place}.png")
        rows, columns = np.mgrid[:height, :width]
        np.save(folder / f"{place}.npy", (1 + rows + columns / 1000).astype(np.float32))
    n = len(sides)
    return Index(
        folder,
        [f"{place}.png" for place in range(n)],
        np.full(n, -1, np.int32),
        [],
        np.array([(w, h) for h, w in sides], np.int32),
        [str(place) for place in range(n)],
        targets=Targets("depth", [f"{place}.npy" for place in range(n)], [str(place) for place in range(n)]),
    )


def test_resize_averages_pixels_and_picks_depth(tmp_path: Path) -> None:
    index = index_of(tmp_path, (48, 64))
    image = read_sample(index, 0)
    found = RgbdResize(24, 32)(index, 0, image, Random(0))
    assert torch.equal(found["image"], resize(image, 24, 32))
    rows, columns = np.mgrid[1:48:2, 1:64:2]
    assert found["depth"].dtype == torch.float32
    np.testing.assert_allclose(found["depth"].numpy(), 1 + rows + columns / 1000, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(48, 90), (70, 64)])
def test_resize_center_crops_other_aspects(tmp_path: Path, height: int, width: int) -> None:
    index = index_of(tmp_path, (height, width))
    image = read_sample(index, 0)
    top, left = (height - 48) // 2, (width - 64) // 2
    found = RgbdResize(48, 64)(index, 0, image, Random(0))
    assert torch.equal(found["image"], image[:, top : top + 48, left : left + 64])
    assert float(found["depth"][0, 0]) == pytest.approx(1 + top + left / 1000)


def test_center_crop_keeps_depth_resolution(tmp_path: Path) -> None:
    """NYU's proportions: 480x640, half of it, and of that 228x304."""
    index = index_of(tmp_path, (96, 128))
    image = read_sample(index, 0)
    whole = RgbdResize(48, 64)
    found = RgbdCenterCrop(whole, 42, 60)(index, 0, image, Random(0))
    assert torch.equal(found["image"], resize(image, 48, 64)[:, 3:45, 2:62])
    rows, columns = np.mgrid[6:90, 4:124]
    np.testing.assert_allclose(found["depth"].numpy(), 1 + rows + columns / 1000, rtol=1e-6)
    prediction = torch.randn(1, 21, 30)
    at = bilinear_sample(prediction, found["rows"][None], found["columns"][None])
    wanted = F.interpolate(prediction[:, None], (84, 120), mode="bilinear", align_corners=False)[:, 0]
    assert torch.allclose(at, wanted, atol=1e-5)


def test_center_crop_maps_of_different_sizes_are_padded(tmp_path: Path) -> None:
    index = index_of(tmp_path, (96, 128), (48, 70))
    pair = RgbdCenterCrop(RgbdResize(48, 64), 42, 60)
    (batch,) = load_batches(index, pair, sequential_keys(range(2), 2), seed=0)
    alone = pair(index, 1, read_sample(index, 1), Random(0))
    prediction = torch.randn(2, 10, 12)
    both = bilinear_sample(prediction, batch.targets["rows"], batch.targets["columns"])
    h, w = alone["depth"].shape
    assert both.shape == batch.targets["depth"].shape == (2, 84, 120) and (h, w) == (42, 60)
    one = bilinear_sample(prediction[1:], alone["rows"][None], alone["columns"][None])
    assert torch.equal(both[1, :h, :w], one[0])
    assert (batch.targets["depth"][1, h:] == 0).all() and (batch.targets["rows"][1, h:] == 2).all()


def smooth(n: int = 5, height: int = 40, width: int = 52) -> tuple[Tensor, Tensor]:
    """Images whose brightness is their depth times 20, uneven enough to tell places apart."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 4, width), indexing="ij")
    depth = torch.stack([5 + 2 * torch.sin(x + k) * torch.cos(y) + 0.5 * y for k in range(n)])
    return (20 * depth)[:, None].expand(-1, 3, -1, -1), depth


def draws_of(n: int, seed: int = 0) -> SampleRNG:
    return SampleRNG(seed, 3, torch.arange(n))


def test_augment_without_options_is_identity() -> None:
    images, depth = smooth()
    seen, far = augment(images, depth, draws_of(5), crop=(40, 52))
    assert torch.allclose(seen, images, atol=1e-3) and torch.equal(far, depth)


def test_augment_keeps_image_and_depth_aligned() -> None:
    images, depth = smooth(40)
    rng = draws_of(40)
    seen, far = augment(images, depth, rng, crop=(40, 52), zoom=(1.0, 1.5), rotation=5.0, mirror=True)
    assert seen.shape == (40, 3, 40, 52) and far.shape == (40, 40, 52)
    scale = rng.uniform("zoom", 1, 1.0, 1.5)[:, :, None]
    assert 1.0 <= scale.min() < 1.1 and 1.4 < scale.max() < 1.5
    inside = far > 0
    # Depth is picked, not averaged: half a pixel along each axis, 0.18 at the steepest, may lie between.
    assert ((seen[:, 0] / 20 / scale - far).abs()[inside] < 0.19).all()
    assert 0.97 < inside.float().mean() < 1


def test_augment_zoom_divides_depth() -> None:
    _, far = augment(
        torch.zeros(50, 3, 20, 24), torch.full((50, 20, 24), 3.0), draws_of(50), crop=(20, 24), zoom=(1, 1.5)
    )
    each = far.flatten(1)
    assert torch.equal(each.amin(1), each.amax(1)) and 2.0 < each.min() < 2.1 and 2.9 < each.max() <= 3.0


def test_augment_mirrors_half() -> None:
    images, depth = smooth(200, 10, 12)
    seen, far = augment(images, depth, draws_of(200), crop=(10, 12), mirror=True)
    turned = torch.isclose(far, depth.flip(-1)).all(-1).all(-1)
    assert 70 < turned.sum() < 130
    assert torch.equal(turned, torch.isclose(seen, images.flip(-1), atol=1e-3).flatten(1).all(1))
    assert torch.allclose(far[~turned], depth[~turned])


def test_augment_rotation_matches_torchvision() -> None:
    images, depth = smooth(1, 61, 81)
    for seed in range(6):
        rng = draws_of(1, seed)
        seen, far = augment(images, depth, rng, crop=(61, 81), rotation=5.0)
        angle = float(rng.uniform("rotation", 1, -5.0, 5.0))
        wanted = rotate(images[0], angle, InterpolationMode.BILINEAR)
        assert torch.allclose(seen[0, :, 10:-10, 10:-10], wanted[:, 10:-10, 10:-10], atol=0.2)
        assert (seen > 0).all() and (abs(angle) < 1 or (far == 0).any()), "from outside comes no depth, but no hole"


def test_augment_crop_covers_all_positions() -> None:
    depth = torch.arange(1.0, 10 * 12 + 1).view(1, 10, 12).expand(400, -1, -1)
    _, far = augment(torch.zeros(400, 3, 10, 12), depth, draws_of(400), crop=(8, 9))
    corners = far[:, 0, 0].round().int() - 1
    assert set((corners // 12).tolist()) == {0, 1, 2} and set((corners % 12).tolist()) == {0, 1, 2, 3}


def test_augment_is_independent_of_batch() -> None:
    images, depth = smooth(4)
    given = {"crop": (30, 40), "zoom": (1.0, 1.5), "rotation": 5.0, "mirror": True}
    seen, far = augment(images, depth, draws_of(4), **given)  # type: ignore[arg-type]
    alone = SampleRNG(0, 3, torch.tensor([2]))
    one, other = augment(images[2:3], depth[2:3], alone, **given)  # type: ignore[arg-type]
    assert torch.equal(seen[2:3], one) and torch.equal(far[2:3], other)
    assert torch.equal(channel_jitter(seen, draws_of(4), 0.8, 1.2)[2:3], channel_jitter(one, alone, 0.8, 1.2))


def test_tint_multiplies_each_channel() -> None:
    source = torch.randint(1, 256, (100, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = channel_jitter(source, draws_of(100), 0.8, 1.2)
    assert found.max() == 255
    ratio = found / source.float()
    factors = torch.where(found < 255, ratio, 0).amax((2, 3))
    assert torch.allclose(torch.where(found < 255, ratio, factors[:, :, None, None]), factors[:, :, None, None])
    assert 0.8 <= factors.min() < 0.82 and 1.18 < factors.max() < 1.2
    assert (factors[:, 0] != factors[:, 1]).all()
