"""Loss and metrics of depth prediction."""

from __future__ import annotations

from dataclasses import dataclass, field

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

    Args:
        predicted, truth: float32 of one shape, meters; truth is 0 where there is no value.
        together: all processes have parts of one batch: c is computed over the whole batch, and the mean of the
            processes' losses is the mean over the pixels of the batch.
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


@dataclass(frozen=True)
class Errors:
    """Sums over pixels for the metrics of Eigen et al. 2014 (protocols 4.7).

    Attributes:
        pixels: number of pixels with a value.
        within: number of them within each of the factors.
        absolute, relative: sums of |d - p| in meters, and of |d - p| / d.
    """

    pixels: int = 0
    within: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FACTORS, 0))
    absolute: float = 0.0
    relative: float = 0.0

    @classmethod
    def of(cls, predicted: Tensor, truth: Tensor) -> Errors:
        """Sums over the pixels with a value; predictions (positive) and truth in meters, of one shape."""
        valid = truth > 0
        d, p = truth[valid].double(), predicted[valid].double()
        ratio, error = torch.maximum(d / p, p / d), (d - p).abs()
        within = {name: int((ratio < factor).sum()) for name, factor in FACTORS.items()}
        return cls(len(d), within, float(error.sum()), float((error / d).sum()))

    def __add__(self, other: Errors) -> Errors:
        within = {name: count + other.within[name] for name, count in self.within.items()}
        sums = (a + b for a, b in ((self.absolute, other.absolute), (self.relative, other.relative)))
        return Errors(self.pixels + other.pixels, within, *sums)

    def values(self) -> dict[str, float]:
        """d1, d2, d3: percent of all pixels within 1.25, 1.25^2 and 1.25^3. mae: in meters. rel: a fraction."""
        count = max(1, self.pixels)
        shares = {name: percent(right / count) for name, right in self.within.items()}
        return shares | {"mae": round(self.absolute / count, 6), "rel": round(self.relative / count, 6)}


@dataclass(frozen=True)
class Median:
    """The median depth of the training set, the constant prediction at chance level.

    Attributes:
        meters: the median, to a millimeter.
        loss: berHu of predicting it everywhere.
    """

    meters: float
    loss: float


def median_depth(train: Index) -> Median:
    """Median over all pixels with a value, of at most 1000 evenly spaced images.

    Raises:
        ArtifactError: a depth map can no longer be read.
    """
    counts = np.zeros(1, np.int64)
    for sample in evenly_spaced(len(train), MEDIAN_IMAGES):
        depth = read_target(train, sample)
        assert isinstance(depth, np.ndarray)
        histogram = np.bincount(
            np.rint(depth[depth > 0].clip(max=MAX_METERS) * 1000).astype(np.int64), minlength=len(counts)
        )
        histogram[: len(counts)] += counts
        counts = histogram
    meters = np.arange(len(counts)) / 1000
    median = float(meters[np.searchsorted(counts.cumsum(), counts.sum() / 2)])
    error = np.abs(meters - median)
    c = max(BERHU_FRACTION * error[counts > 0].max(), 1e-6)
    losses = np.where(error <= c, error, (error**2 + c**2) / (2 * c))
    return Median(median, float((losses * counts).sum() / counts.sum()))
