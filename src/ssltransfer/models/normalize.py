"""Normalization of uint8 images for a network; its kind is stored with the weights."""

from collections.abc import Sequence

from torch import Tensor

from ssltransfer.config.base import MeanStd
from ssltransfer.config.base import Normalize as Normalize
from ssltransfer.data.lab import lightness_alone, rgb_to_lab
from ssltransfer.data.transfer import constant

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_BGR = (104.0, 117.0, 123.0)

_BY_VALUES: dict[tuple[tuple[float, ...], ...], Normalize] = {
    (_MEAN, _STD): "imagenet",
    ((0.5,) * 3, (0.5,) * 3): "half",
    ((0.0,) * 3, (1.0,) * 3): "none",
}


def normalization_by_values(mean: Sequence[float], std: Sequence[float]) -> Normalize:
    """The normalization with this mean and standard deviation of [0, 1] values, by its name if it has one."""
    named = _BY_VALUES.get((tuple(mean), tuple(std)))
    return named or MeanStd(mean=list(mean), std=list(std))


def normalize(images: Tensor, normalization: Normalize) -> Tensor:
    """uint8 (B, 3, H, W) RGB -> float32 (B, 3, H, W).

    Args:
        images: RGB.
        normalization: imagenet (mean and std of [0, 1] values), half ([-1, 1]), none ([0, 1]), per-image (zero mean
            and unit std over all pixels and channels, as for the tiles of jigsaw++), per-channel (the same for each
            channel separately, as for the tiles of jigsaw), caffe (BGR 0..255 minus its mean), lab-lightness
            ((L - 50) / 50 of CIE Lab three times, as for colorization), or mean and std of [0, 1] values.
    """
    if normalization == "lab-lightness":
        return lightness_alone(rgb_to_lab(images))
    x = images.float()
    if normalization == "caffe":
        return x.flip(1) - constant(_CAFFE_BGR, x.device).view(1, 3, 1, 1)
    if normalization in ("per-image", "per-channel"):
        over = (1, 2, 3) if normalization == "per-image" else (2, 3)
        # Divide by at least one gray value: a blank image becomes zeros, not amplified noise.
        return (x - x.mean(over, keepdim=True)) / x.std(over, keepdim=True, correction=0).clamp(min=1.0)
    x = x / 255
    if normalization == "half":
        return x * 2 - 1
    if normalization == "imagenet" or isinstance(normalization, dict):
        values = (_MEAN, _STD) if normalization == "imagenet" else (normalization["mean"], normalization["std"])
        mean, std = (constant(tuple(v), x.device).view(1, 3, 1, 1) for v in values)
        return (x - mean) / std
    return x
