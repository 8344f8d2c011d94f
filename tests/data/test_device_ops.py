from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from ssltransfer.data import device_ops as ops
from ssltransfer.data.rng import SampleRNG
from tests.helpers.pretended_cuda import CUDA, on_gpu


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def draws_of(n: int, seed: int = 0) -> SampleRNG:
    return SampleRNG(seed, 0, torch.arange(n))


def test_gray_is_channel_mean():
    x = pixels(2, 9, 3, 5, 6)
    expected = x.numpy().astype(np.float64).mean(axis=2, keepdims=True).repeat(3, axis=2)
    found = ops.gray(x)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    assert torch.equal(found[:, :, 0], found[:, :, 2])


def is_gray(x: Tensor) -> Tensor:
    return (x[..., 0, :, :] == x[..., 1, :, :]).flatten(-2).all(-1)


def test_random_gray_is_shared_by_puzzle_and_occluders():
    main, other = pixels(2000, 9, 3, 2, 2), pixels(2000, 9, 3, 2, 2, seed=1)
    rng = draws_of(2000)
    found = is_gray(ops.random_grayscale(main, rng, 0.7))
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert torch.equal(found, is_gray(ops.random_grayscale(other, rng, 0.7)))
    assert stats.binomtest(int(found[:, 0].sum()), 2000, 0.7).pvalue > 1e-3
    each = is_gray(ops.random_grayscale(main, rng, 2 / 3, each=True))
    assert stats.binomtest(int(each.sum()), 18000, 2 / 3).pvalue > 1e-3
    assert 0.05 < (each.float().mean(1) - 2 / 3).pow(2).mean().sqrt() < 0.3  # tile by tile, not by puzzle


def test_random_gray_keeps_other_samples():
    x = pixels(40, 9, 3, 4, 4)
    found = ops.random_grayscale(x, draws_of(40), 0.5)
    made = is_gray(found)[:, 0]
    assert 0 < made.sum() < 40
    assert torch.equal(found[~made], x[~made].float())
    assert torch.equal(found[made], ops.gray(x)[made])


@pytest.mark.parametrize("per_channel", [False, True])
def test_standardize_matches_numpy(per_channel: bool):
    x = pixels(3, 9, 3, 8, 8)
    axes = (-2, -1) if per_channel else (-3, -2, -1)
    plain = x.numpy().astype(np.float64)
    expected = (plain - plain.mean(axes, keepdims=True)) / plain.std(axes, keepdims=True)
    np.testing.assert_allclose(ops.standardize(x, per_channel=per_channel).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 85.0 + 1 / 3, 255.0])
@pytest.mark.parametrize("per_channel", [False, True])
def test_standardize_constant_tile_is_zero(value: float, per_channel: bool):
    found = ops.standardize(torch.full((2, 9, 3, 64, 64), value), per_channel=per_channel)
    assert torch.equal(found, torch.zeros(2, 9, 3, 64, 64))


def test_standardize_floor_matches_kolesnikov():
    x = torch.full((1, 3, 8, 8), 10.0)
    x[0, 0, 0, 0] = 10.5
    plain = x.numpy().astype(np.float64)
    least = 1 / np.sqrt(192)
    assert plain.std() < least
    np.testing.assert_allclose(ops.standardize(x).numpy(), (plain - plain.mean()) / least, atol=1e-5)


def test_color_dropping_keeps_one_channel():
    x = pixels(1200, 3, 8, 8)
    found = ops.drop_colors(x, draws_of(1200))
    plain = x.double() - x.double().mean(dim=(-2, -1), keepdim=True)
    kept = (found - plain).abs().amax(dim=(-2, -1)) < 1e-4
    assert (kept.sum(-1) == 1).all()
    assert stats.chisquare(kept.sum(0).numpy()).pvalue > 1e-3
    noise = found[~kept]
    assert noise.abs().max() < 0.5
    assert stats.kstest(noise.flatten()[::7].numpy(), "uniform", args=(-0.5, 1)).pvalue > 1e-3
    one, other = noise.reshape(1200, 2, 64).unbind(1)
    assert abs(np.corrcoef(one.flatten(), other.flatten())[0, 1]) < 0.02


def test_color_projection_matches_paper():
    a = np.array([[-1.0, 2.0, -1.0]])
    matrix = np.eye(3) - a.T @ a / (a @ a.T)
    np.testing.assert_allclose(
        matrix, [[0.8333, 0.3333, -0.1667], [0.3333, 0.3333, 0.3333], [-0.1667, 0.3333, 0.8333]], atol=1e-4
    )
    x = pixels(2, 5, 3, 4, 4)
    expected = np.einsum("dc,bpchw->bpdhw", matrix, x.numpy().astype(np.float64))
    np.testing.assert_allclose(ops.project_colors(x).numpy(), expected, atol=1e-4)
    once = ops.project_colors(x)
    assert torch.allclose(ops.project_colors(once), once, atol=1e-3)  # a projection


@pytest.mark.parametrize("center", [False, True])
def test_scale_by_rms_gives_unit_rms(center: bool):
    x = pixels(3, 2, 3, 6, 6)
    plain = x.numpy().astype(np.float64)
    plain -= plain.mean((-2, -1), keepdims=True) if center else 0
    expected = plain / np.sqrt((plain**2).mean((-3, -2, -1), keepdims=True))
    np.testing.assert_allclose(ops.scale_by_rms(x, center=center).numpy(), expected, atol=1e-5)
    assert torch.equal(ops.scale_by_rms(torch.zeros(1, 3, 4, 4)), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(("size", "low", "high"), [(96, 100, 9025), (24, 100, 529)])
def test_random_downsample_interpolates_both_ways(size: int, low: int, high: int):
    x, rng = pixels(120, 3, size, size), draws_of(120)
    found = ops.random_downsample(x, rng, 0.33)
    chosen = rng.uniform("downsample/which", 1)[:, 0] < 0.33
    sides = (low + (high - low) * rng.uniform("downsample/pixels", 1)[:, 0].double()).sqrt().long()
    assert 20 < chosen.sum() < 60 and sides.min() >= 10 and sides.max() < size
    assert torch.equal(found[~chosen], x[~chosen].float())
    for patch, side, got in zip(x[chosen].float(), sides[chosen], found[chosen], strict=True):
        small = functional.interpolate(patch[None], size=(int(side), int(side)), mode="bilinear")
        back = functional.interpolate(small, size=(size, size), mode="bilinear")[0]
        assert torch.allclose(got, back, atol=0.02)


def test_random_downsample_changes_a_third_of_the_patches():
    x = pixels(1500, 3, 12, 12)
    found = ops.random_downsample(x, draws_of(1500), 0.33)
    changed = (found != x.float()).flatten(1).any(1)
    assert stats.binomtest(int(changed.sum()), 1500, 0.33).pvalue > 1e-3
    # A side of 10 or, for 1 of 21 patches, of 11: the square root of 100 to 121 pixels.
    small = functional.interpolate(x.float(), size=(10, 10), mode="bilinear")
    expected = functional.interpolate(small, size=(12, 12), mode="bilinear")
    assert (found[changed] - expected[changed]).abs().amax((1, 2, 3)).quantile(0.9) < 1e-3


def test_rotate4_matches_protocol():
    x = pixels(3, 3, 5, 5)
    found, label = ops.rotate4(x)
    assert found.shape == (12, 3, 5, 5) and label.tolist() == [0, 1, 2, 3] * 3
    for i in range(3):
        image = x[i].numpy().transpose(1, 2, 0)
        transposed = image.transpose(1, 0, 2)
        expected = [image, transposed[::-1], image[::-1, ::-1], image[::-1].transpose(1, 0, 2)]
        for k in range(4):
            assert np.array_equal(found[4 * i + k].numpy().transpose(1, 2, 0), expected[k])


def test_mirror_flips_half_the_samples():
    x = pixels(1000, 2, 3, 4, 5)
    found = ops.random_hflip(x, draws_of(1000))
    turned = (found == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(found[~turned], x[~turned])
    assert stats.binomtest(int(turned.sum()), 1000, 0.5).pvalue > 1e-3


def test_crops_are_slices_at_all_positions():
    x, rng = pixels(400, 3, 9, 12), draws_of(400)
    found = ops.random_crop(x, rng, 7)
    top, left = ops.random_corners(x, rng, 7)
    for i in range(400):
        assert torch.equal(found[i], x[i, :, top[i] : top[i] + 7, left[i] : left[i] + 7])
    assert stats.chisquare(torch.bincount(top * 6 + left, minlength=18).numpy()).pvalue > 1e-3
    assert torch.equal(ops.center_crop(x, 7), x[:, :, 1:8, 2:9])
    for crop in (lambda: ops.random_crop(x, rng, 10), lambda: ops.center_crop(x, 10)):
        with pytest.raises(ValueError, match="no crop of 10x10"):
            crop()


EVERY = {
    "random_grayscale": lambda x, d: ops.random_grayscale(x, d, 0.5),
    "gray_each": lambda x, d: ops.random_grayscale(x, d, 0.5, each=True),
    "standardize": lambda x, d: ops.standardize(x),
    "standardize_channels": lambda x, d: ops.standardize(ops.gray(x), per_channel=True),
    "drop_colors": lambda x, d: ops.scale_by_rms(ops.drop_colors(x[:, 0], d)),
    "project_colors": lambda x, d: ops.scale_by_rms(ops.project_colors(x), center=True),
    "downsample": lambda x, d: ops.random_downsample(x[:, 0], d, 0.8),
    "mirror": lambda x, d: ops.random_hflip(x, d),
    "crop": lambda x, d: ops.random_crop(x[:, 0], d, 20),
}


@pytest.mark.parametrize("name", EVERY)
def test_device_ops_are_independent_of_batch(name: str):
    op: Callable[[Tensor, SampleRNG], Tensor] = EVERY[name]
    x, ids = pixels(12, 9, 3, 32, 32), torch.arange(100, 112)
    batch = op(x, SampleRNG(0, 3, ids))
    order = torch.tensor([7, 2, 10])
    assert torch.equal(op(x[order], SampleRNG(0, 3, ids[order])), batch[order])
    assert torch.equal(op(x[4:5], SampleRNG(0, 3, ids[4:5])), batch[4:5])
    assert batch.isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", EVERY)
def test_device_ops_on_a_gpu_equal_the_cpu(name: str):
    x, ids = pixels(12, 9, 3, 32, 32), torch.arange(12)
    expected = EVERY[name](x, SampleRNG(0, 3, ids))
    with on_gpu() as cuda:
        assert torch.equal(EVERY[name](x.cuda(), SampleRNG(0, 3, ids, CUDA)).cpu(), expected)
    assert not cuda.faults
