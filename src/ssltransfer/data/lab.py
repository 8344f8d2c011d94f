"""Conversion of batches of images to CIE Lab and back, on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Linear sRGB to XYZ under D65 for the 2-degree standard observer, as in scikit-image.
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_RGB = torch.tensor(_XYZ, dtype=torch.float64, device="cpu").inverse().tolist()  # whatever the default device
_WHITE = (0.95047, 1.0, 1.08883)
_KNEE, _SLOPE, _FOOT = 0.008856, 7.787, 16 / 116


def rgb_to_lab(x: Tensor) -> Tensor:
    """uint8 or float (B, 3, H, W) sRGB, 0 to 255 -> float32 (B, 3, H, W): L 0 to 100, a and b about -110 to 110.

    CIE 1976 under D65 with the constants of scikit-image's `rgb2lab`, to about 1e-3 (protocols 1.7).
    """
    value = x.float() / 255
    linear = torch.where(value > 0.04045, ((value + 0.055) / 1.055).clamp(min=0).pow(2.4), value / 12.92)
    # Explicit sums of products: a matrix product may be rounded to TF32 or bfloat16.
    xyz = (part / white for part, white in zip(_mixed(linear, _XYZ), _WHITE, strict=True))
    fx, fy, fz = (torch.where(t > _KNEE, t.clamp(min=_KNEE).pow(1 / 3), _SLOPE * t + _FOOT) for t in xyz)
    return torch.stack((116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)), dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """float (B, 3, H, W) Lab -> float32 sRGB, 0 to 255; colors outside sRGB are clipped."""
    lightness, a, b = lab.float().unbind(1)
    fy = (lightness + 16) / 116
    parts = (fy + a / 500, fy, (fy - b / 200).clamp(min=0))
    cubes = (torch.where(f > _KNEE ** (1 / 3), f**3, (f - _FOOT) / _SLOPE) for f in parts)
    xyz = torch.stack([cube * white for cube, white in zip(cubes, _WHITE, strict=True)], dim=1)
    linear = torch.stack(_mixed(xyz, _RGB), dim=1)
    value = torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=0.0031308).pow(1 / 2.4) - 0.055, 12.92 * linear)
    return value.clamp(0, 1) * 255


def lightness_alone(lab: Tensor) -> Tensor:
    """(L - 50) / 50 three times: float (B, 3, H, W) Lab -> (B, 3, H, W) in [-1, 1], without any color."""
    return ((lab[:, :1] - 50) / 50).expand(-1, 3, -1, -1)


def _mixed(x: Tensor, matrix: Sequence[Sequence[float]]) -> list[Tensor]:
    """Each row of the matrix times the three channels."""
    first, second, third = x.unbind(1)
    return [row[0] * first + row[1] * second + row[2] * third for row in matrix]
