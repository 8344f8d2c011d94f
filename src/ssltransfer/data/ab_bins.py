"""The 313 color bins of Zhang et al. 2016: table, soft encoding of a color, decoding."""

import torch
from torch import Tensor

from ssltransfer.data.transfer import constant

STEP = 10  # between bins, in a and in b

# a -> least and largest b. The table is the published one: the corners of all cells of 10x10 into which an sRGB color
# falls are 309 of its points, the others are (40, 90), (100, -90), (100, -10) and (100, 0) (protocols 1.7).
_RANGES = {
    **{-90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100), -40: (-40, 100), -30: (-50, 100)},
    **{-20: (-50, 100), -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90), 30: (-90, 90), 40: (-100, 90)},
    **{50: (-100, 80), 60: (-110, 80), 70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0)},
}

BINS = tuple((a, b) for a, (low, high) in _RANGES.items() for b in range(low, high + STEP, STEP))
"""(a, b) of each bin; a rises, then b."""


def bins(device: torch.device | None = None) -> Tensor:
    """float32 (313, 2): a and b of each bin."""
    return constant(BINS, device or torch.device("cpu")).float()


def soft_code(ab: Tensor, *, neighbors: int = 10, sigma: float = 5.0) -> Tensor:
    """Soft encoding of colors: Gaussian weights of the nearest bins, which sum to 1.

    float (B, 2, H, W) -> float32 (B, 313, H, W) with `neighbors` nonzero shares each; `sigma` is in Lab units.
    Zhang et al. 2016, section 2.1; richzhang/colorization, NNEncLayer (protocols 1.7).
    """
    place = bins(ab.device)
    points = ab.float().permute(0, 2, 3, 1)  # (B, H, W, 2)
    # By differences: the expanded square of torch.cdist loses the digits that tell neighbors apart.
    square = (points[..., :1] - place[:, 0]).square() + (points[..., 1:] - place[:, 1]).square()
    nearest, which = square.topk(neighbors, dim=-1, largest=False)
    # Relative to the nearest bin, so that the weights of a color far from all bins do not underflow.
    share = torch.softmax(-nearest / (2 * sigma**2), dim=-1)
    return torch.zeros_like(square).scatter_(-1, which, share).permute(0, 3, 1, 2)


def decode(logits: Tensor, *, temperature: float = 0.38) -> Tensor:
    """Color of a distribution over the bins: its annealed mean (Zhang et al. 2016, equation 5).

    Logits or logarithms of shares, float (B, 313, H, W) -> a and b, float32 (B, 2, H, W). Temperature 1 gives the mean,
    values near 0 the most likely bin.
    """
    share = torch.softmax(logits.float() / temperature, dim=1)
    return torch.stack([(share * one.view(1, -1, 1, 1)).sum(1) for one in bins(logits.device).unbind(1)], dim=1)


def balance(prior: Tensor, *, uniform: float = 0.5) -> Tensor:
    """Loss weight of the pixels of each bin, float32 (313,), larger for rare colors (Zhang et al. 2016, equation 4).

    The inverse of `prior`, the shares of the bins in training images, mixed with a share `uniform` of a uniform
    distribution over the bins that occur, scaled so that its mean under `prior` is 1. A bin that does not occur has the
    largest weight.
    """
    prior = prior.double() / prior.double().sum()
    weight = 1 / ((1 - uniform) * prior + uniform / (prior > 0).sum())
    return (weight / (prior * weight).sum()).float()
