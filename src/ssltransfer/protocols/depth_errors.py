"""Loss and metrics of depth prediction."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ssltransfer.artifacts.index import Index
from ssltransfer.data.targets import read_target
from ssltransfer.protocols.base import evenly_spaced, percent

FACTORS = {"d1": 1.25, "d2": 1.25**2, "d3": 1.25**3}
BERHU_FRACTION = 0.2  # of the batch's largest error: berHu is quadratic from there on
MEDIAN_IMAGES = 1000  # of the training set, evenly spaced
MAX_METERS = 1000  # of the histogram for the median


def berhu(predicted: Tensor, truth: Tensor, *, together: bool = False) -> Tensor:
    """Reverse Huber loss (Laina et al. 2016, equation 1), the mean over pixels with a value; 0 without such pixels.

    |e| up to c, (e^2 + c^2) / (2 c) beyond; c is a fifth of the largest |e| of the batch, without a gradient.
    `predicted` and `truth` are float32 of one shape in meters; truth is 0 where there is no value. `together`: all
    processes have parts of one batch, c is computed over the whole batch, and the mean of the processes' losses is the
    mean over the pixels of the batch.
    """
    valid = truth > 0
    error = torch.where(valid, (predicted - truth).abs(), 0.0)
    largest = error.detach().max()
    if together and dist.is_initialized():
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    # The minimum avoids 0 / 0 in an empty batch; it is below the resolution of depth.
    c = (BERHU_FRACTION * largest).clamp(min=1e-6)
    losses = torch.where(error <= c, error, (error.square() + c.square()) / (2 * c))
    return losses.sum() / _count(valid, together)


def share_within(predicted: Tensor, truth: Tensor, factor: float = FACTORS["d1"], *, together: bool = False) -> Tensor:
    """Fraction of the pixels with a value and max(d/p, p/d) < `factor`, a scalar.

    `together` as for `berhu`.
    """
    valid = truth > 0
    right = valid & (predicted < factor * truth) & (truth < factor * predicted)
    return right.sum() / _count(valid, together)


def _count(valid: Tensor, together: bool) -> Tensor:
    """Number of pixels with a value, a scalar of at least 1; the mean over all processes if `together`."""
    count = valid.sum().float()
    if together and dist.is_initialized():
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return count.clamp(min=1)


def error_sums(predicted: Tensor, truth: Tensor) -> np.ndarray:
    """Sums over the pixels with a value, float64 (6,); add them up for `depth_metrics` of several images.

    1, 1 where within each of the three factors, |d - p| in meters, |d - p| / d; predictions are positive.
    """
    valid = truth > 0
    d, p = truth[valid].double(), predicted[valid].double()
    ratio, error = torch.maximum(d / p, p / d), (d - p).abs()
    within = [int((ratio < factor).sum()) for factor in FACTORS.values()]
    return np.array([len(d), *within, float(error.sum()), float((error / d).sum())])


def depth_metrics(sums: np.ndarray) -> dict[str, float]:
    """The metrics of Eigen et al. 2014 (protocols 4.7) from `error_sums`.

    d1, d2, d3: percent of the pixels within 1.25, 1.25^2 and 1.25^3. mae: in meters. rel: a fraction.
    """
    *within, mae, rel = (sums[1:] / max(1, sums[0])).tolist()
    shares = {name: percent(share) for name, share in zip(FACTORS, within, strict=True)}
    return shares | {"mae": round(mae, 6), "rel": round(rel, 6)}


@dataclass(frozen=True)
class Median:
    """The median depth of the training set, the constant prediction at chance level."""

    meters: float  # to a millimeter
    loss: float  # berHu of predicting it everywhere


def median_depth(train: Index) -> Median:
    """Median over all pixels with a value, of at most 1000 evenly spaced images.

    Raises:
        ArtifactError: a depth map can no longer be read.
    """
    counts = np.zeros(1, np.int64)
    for sample in evenly_spaced(len(train), MEDIAN_IMAGES):
        depth = read_target(train, sample)
        assert isinstance(depth, np.ndarray)
        millimeters = np.rint(depth[depth > 0].clip(max=MAX_METERS) * 1000).astype(np.int64)
        before, counts = counts, np.bincount(millimeters, minlength=len(counts))
        counts[: len(before)] += before
    meters = np.arange(len(counts)) / 1000
    median = float(meters[np.searchsorted(counts.cumsum(), counts.sum() / 2)])
    error = np.abs(meters - median)
    c = max(BERHU_FRACTION * error[counts > 0].max(), 1e-6)
    losses = np.where(error <= c, error, (error**2 + c**2) / (2 * c))
    return Median(median, float((losses * counts).sum() / counts.sum()))
