"""From uint8 pixels to what a network was trained on; the rule travels with the weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Normalise = Literal["imagenet", "half", "none", "per-picture", "caffe"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_BGR = (104.0, 117.0, 123.0)


def normalise(pictures: Tensor, rule: Normalise) -> Tensor:
    """uint8 (B, 3, H, W) RGB -> float32 (B, 3, H, W).

    Args:
        pictures: RGB.
        rule: imagenet (mean and deviation of [0, 1] values), half ([-1, 1]), none ([0, 1]), per-picture (zero mean,
            unit deviation over all pixels and channels: what the tiles of a jigsaw are given), caffe (BGR 0..255
            minus its mean).
    """
    x = pictures.float()
    if rule == "caffe":
        return x.flip(1) - torch.tensor(_CAFFE_BGR, device=x.device).view(1, 3, 1, 1)
    if rule == "per-picture":
        mean = x.mean((1, 2, 3), keepdim=True)
        # One grey value of deviation at least: a blank picture becomes zeros, not noise blown up.
        return (x - mean) / x.std((1, 2, 3), keepdim=True, correction=0).clamp(min=1.0)
    x = x / 255
    if rule == "half":
        return x * 2 - 1
    if rule == "imagenet":
        mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (_MEAN, _STD))
        return (x - mean) / std
    return x
