"""Loss and metrics of depth against plain loops and NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ssltransfer.artifacts.index import read_index
from ssltransfer.config.formats import Synthetic
from ssltransfer.data.targets import read_target
from ssltransfer.protocols.depth_errors import berhu, depth_metrics, error_sums, median_depth, share_within
from ssltransfer.stages.index import run as make_index


def maps(seed: int = 0, shape: tuple[int, ...] = (4, 9, 11)) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions, and depth with holes."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(shape) < 0.2, 0, rng.uniform(0.5, 9, shape))
    return torch.from_numpy(rng.uniform(0.3, 10, shape)).float(), torch.from_numpy(truth).float()


def plain_berhu(predicted: np.ndarray, truth: np.ndarray) -> float:
    errors = [abs(p - d) for p, d in zip(predicted.ravel(), truth.ravel(), strict=True) if d > 0]
    c = 0.2 * max(errors)
    return float(np.mean([e if e <= c else (e * e + c * c) / (2 * c) for e in errors]))


def test_berhu_worked_example() -> None:
    # Errors 0.1, 1 and 2: c is 0.4. |0.1| + (1 + 0.16) / 0.8 + (4 + 0.16) / 0.8; the pixel without a value is ignored.
    predicted, truth = torch.tensor([2.1, 3.0, 2.0, 9.0]), torch.tensor([2.0, 4.0, 4.0, 0.0])
    assert float(berhu(predicted, truth)) == pytest.approx((0.1 + 1.45 + 5.2) / 3, rel=1e-5)


def test_errors_worked_example() -> None:
    # Ratios 1.2, 1.5 and 2 are within 1.25, within 1.25^2 = 1.5625, and beyond 1.25^3 = 1.953; errors 0.2, 1 and 4 m.
    predicted, truth = torch.tensor([1.2, 3.0, 4.0, 1.0]), torch.tensor([1.0, 2.0, 8.0, 0.0])
    errors = depth_metrics(error_sums(predicted, truth))
    assert (errors["d1"], errors["d2"], errors["d3"]) == pytest.approx((100 / 3, 200 / 3, 200 / 3))
    assert errors["mae"] == pytest.approx(5.2 / 3, abs=1e-5)
    assert errors["rel"] == pytest.approx((0.2 / 1 + 1 / 2 + 4 / 8) / 3, abs=1e-5)


def test_berhu_equals_plain_loop() -> None:
    predicted, truth = maps()
    assert float(berhu(predicted, truth)) == pytest.approx(plain_berhu(predicted.numpy(), truth.numpy()), rel=1e-5)


def test_berhu_ignores_pixels_without_value() -> None:
    predicted, truth = maps()
    other = torch.where(truth > 0, predicted, 1e6)
    assert torch.equal(berhu(other, truth), berhu(predicted, truth))
    assert torch.equal(share_within(other, truth), share_within(predicted, truth))


def test_berhu_is_continuous_at_c() -> None:
    # The largest error of the batch is 1, so c is 0.2; the other pixel's error passes through it.
    def loss(error: float) -> tuple[float, float]:
        predicted = torch.tensor([3.0 + error, 4.0], dtype=torch.float64, requires_grad=True)
        value = berhu(predicted, torch.full((2,), 3.0, dtype=torch.float64))
        (slope,) = torch.autograd.grad(value, predicted)
        return value.item() * 2 - (1 + 0.04) / 0.4, float(slope[0]) * 2

    for error in (0.1, 0.2 - 1e-6, 0.2 + 1e-6):
        value, slope = loss(error)
        assert value == pytest.approx(error, abs=1e-9) and slope == pytest.approx(1, abs=1e-4)
    assert loss(0.3) == pytest.approx(((0.09 + 0.04) / 0.4, 1.5))


def test_berhu_of_empty_batch_is_zero() -> None:
    predicted = torch.full((2, 3, 3), 2.0, requires_grad=True)
    value = berhu(predicted, torch.zeros(2, 3, 3))
    value.backward()
    assert value.item() == 0 and predicted.grad is not None and not predicted.grad.any()
    exact = berhu(predicted, torch.full((2, 3, 3), 2.0))
    exact.backward()
    assert exact.item() == 0 and predicted.grad.isfinite().all()
    assert float(share_within(predicted, torch.zeros(2, 3, 3))) == 0


def test_errors_equal_numpy() -> None:
    predicted, truth = maps(1)
    errors = error_sums(predicted[:1], truth[:1]) + error_sums(predicted[1:], truth[1:])
    valid = truth.numpy() > 0
    d, p = truth.numpy()[valid].astype(float), predicted.numpy()[valid].astype(float)
    ratio = np.maximum(d / p, p / d)
    wanted = {f"d{k}": 100 * (ratio < 1.25**k).mean() for k in (1, 2, 3)}
    wanted |= {"mae": np.abs(d - p).mean(), "rel": (np.abs(d - p) / d).mean()}
    assert depth_metrics(errors) == pytest.approx(wanted, abs=1e-5)
    assert errors[0] == valid.sum()
    assert float(share_within(predicted, truth)) == pytest.approx(wanted["d1"] / 100)
    assert float(share_within(-predicted, truth)) == 0


def test_median_depth_is_over_all_pixels(tmp_path: Path) -> None:
    spec = Synthetic(subset="rgbd", split="train", num_images=3, size=48, root=str(tmp_path / "world"), targets="depth")
    make_index(spec, output=tmp_path / "train.parquet", threads=1)
    index = read_index(tmp_path / "train.parquet")
    pixels = np.concatenate([np.asarray(read_target(index, sample)).ravel() for sample in range(3)])
    pixels = pixels[pixels > 0]
    found = median_depth(index)
    assert found.meters == pytest.approx(np.median(pixels), abs=0.0011)
    assert found.loss == pytest.approx(plain_berhu(np.full_like(pixels, found.meters), pixels), rel=1e-3)
