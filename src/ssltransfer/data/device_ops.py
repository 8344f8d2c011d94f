"""Augmentation of batches on the device: uint8 images in, float network inputs out.

Every function takes (B, ..., C, H, W) on any device, uint8 or float on the scale 0 to 255. The result for a sample
depends neither on its batch nor on the device: decisions come from `SampleRNG`, arithmetic is elementwise, and sums
are computed in float64 and rounded once. `...` are the tiles of a sample, if any.
"""

import math

import torch
from torch import Tensor

from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transfer import to_device


def _some(x: Tensor, rng: SampleRNG, purpose: str, probability: float, each: bool) -> Tensor:
    """bool, broadcastable over x (B, ..., C, H, W): one decision per sample, or with `each` per tile."""
    tiles = x.shape[1:-3] if each else (1,) * (x.ndim - 4)
    chosen = rng.host.uniform(purpose, math.prod(tiles)) < probability
    return to_device(chosen.reshape(len(x), *tiles, 1, 1, 1), x.device)


def gray(x: Tensor) -> Tensor:
    """The mean of R, G and B in all three channels: float32, same shape (protocols.md 1.2 and 1.4)."""
    # A reduction kernel multiplies by 1/3 on one device and divides by 3 on the other. This rounds equally on both.
    red, green, blue = x.float().unbind(dim=-3)
    return ((red + green + blue) / 3).unsqueeze(-3).expand(x.shape).contiguous()


def random_grayscale(x: Tensor, rng: SampleRNG, probability: float, *, each: bool = False) -> Tensor:
    """Random grayscale: float32, same shape.

    Decided once for all tiles of a sample, so that a mixture of gray and color never gives an occluder away
    (protocols.md 1.2). With `each`, decided for each tile (Kolesnikov et al. 2019, section 3.2).
    """
    return torch.where(_some(x, rng, "gray", probability, each), gray(x), x.float())


def _mean(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """float64 mean over dims (kept). The order of summation has no effect after rounding to float32."""
    return x.sum(dim=dims, keepdim=True, dtype=torch.float64) / math.prod(x.shape[d] for d in dims)


def standardize(x: Tensor, *, per_channel: bool = False) -> Tensor:
    """Zero mean and unit standard deviation for every tile, or for each of its channels: float32, same shape.

    A tile is divided by at least 1/sqrt(n) for n values, as in Kolesnikov's code (Jigsaw++, protocols.md 1.2; 1.4), a
    channel by at least 1e-5 (Jigsaw, 1.1). A constant tile gives zeros.
    """
    dims = (-2, -1) if per_channel else (-3, -2, -1)
    least = 1e-5 if per_channel else 1.0 / math.sqrt(math.prod(x.shape[d] for d in dims))
    values = x.float()
    centered = values - _mean(values, dims).float()
    return centered / _mean(centered.square(), dims).sqrt().float().clamp(min=least)


def drop_colors(x: Tensor, rng: SampleRNG) -> Tensor:
    """Color dropping: one random channel of each patch, mean-subtracted; the others uniform noise.

    Doersch et al. 2015, section 3.1; noise in (-0.5, 0.5) on the scale 0 to 255 (protocols.md 1.3a).
    (N, 3, H, W) -> float32, same shape. Follow with `scale_by_rms`.
    """
    channel = torch.arange(3, device=x.device).reshape(3, 1, 1)
    is_kept = rng.integers("drop_colors/channel", 1, 3)[:, :, None, None] == channel
    values = x.float()
    centered = values - _mean(values, (-2, -1)).float()
    # 17 bits are enough for noise, so that one draw of 53 bits serves the three channels of a pixel.
    bits = rng.bits("drop_colors/noise", x.shape[-2] * x.shape[-1]).reshape(-1, 1, *x.shape[-2:])
    noise = (bits >> (17 * channel)) & 0x1FFFF
    return torch.where(is_kept, centered, (noise.float() + 0.5) * 2.0**-17 - 0.5)


def project_colors(x: Tensor) -> Tensor:
    """Color projection: x B with B = I - a^T a / (a a^T), a = [-1, 2, -1]: no green against magenta.

    Doersch et al. 2015, section 3.1; protocols.md 1.3(a). Channels R, G, B (or B, G, R); float32, same shape.
    """
    red, green, blue = x.float().unbind(dim=-3)
    along = (2 * green - red - blue) / 6
    return torch.stack((red + along, green - 2 * along, blue + along), dim=-3)


def scale_by_rms(x: Tensor, *, center: bool = False) -> Tensor:
    """Each patch divided by the root of its mean square, at least 1e-5 (protocols.md 1.3a): float32, same shape.

    With `center`, each channel's mean is subtracted first. Doersch et al. 2015 subtract the mean before they project
    the colors; the projection is linear, so the order does not matter.
    """
    values = x.float()
    if center:
        values = values - _mean(values, (-2, -1)).float()
    return values / _mean(values.square(), (-3, -2, -1)).sqrt().float().clamp(min=1e-5)


def _resample_axis(x: Tensor, side: Tensor) -> Tensor:
    """The last axis of x (N, R, L) linearly resized to side (N,) and back, without antialiasing.

    Both steps are linear interpolation between pixel centers, so that each value is a sum of four pixels.
    """
    length = x.shape[-1]
    small = side.float()[:, None]
    place = torch.arange(length, device=x.device, dtype=torch.float32)[None]

    def taps(at: Tensor, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at = at.clamp(min=0.0)
        left = torch.minimum(at.floor(), limit)
        return left, torch.minimum(left + 1, limit), (at - left).clamp(max=1.0)

    last = torch.full_like(small, length - 1)
    upper = taps((place + 0.5) * (small / length) - 0.5, small - 1)
    halves = []
    for node in upper[:2]:
        left, right, weight = taps((node + 0.5) * (length / small) - 0.5, last)
        from_left = x.gather(2, left.long()[:, None].expand(x.shape))
        from_right = x.gather(2, right.long()[:, None].expand(x.shape))
        halves.append(from_left + (from_right - from_left) * weight[:, None])
    return halves[0] + (halves[1] - halves[0]) * upper[2][:, None]


def random_downsample(x: Tensor, rng: SampleRNG, probability: float) -> Tensor:
    """Downsample random patches to a random number of pixels and resize them back: float32, same shape.

    Removes the shortcuts of chromatic aberration and lens sharpness (Doersch et al. 2015, section 3.1). Both resizes
    are bilinear, as in the authors' code. The side is floor(sqrt(uniform(100, (W-1)^2))): 100 to 9025 pixels for
    patches of 96 (protocols.md 1.3a). Patches are (N, C, W, W).
    """
    channels, width = x.shape[1], x.shape[-1]
    most = (width - 1) ** 2
    chosen = (rng.host.uniform("downsample/which", 1)[:, 0] < probability).nonzero()[:, 0]
    pixels = rng.host.uniform("downsample/pixels", 1, min(100, most), most)[chosen, 0]
    rows, sides = to_device(chosen, x.device), to_device(pixels.sqrt().floor(), x.device)
    values = x.float().clone()
    some = values[rows]
    for _ in range(2):  # columns, then rows
        flat = some.reshape(len(rows), channels * width, width)
        some = _resample_axis(flat, sides).reshape(some.shape).transpose(-2, -1).contiguous()
    values[rows] = some
    return values


def rotate4(x: Tensor) -> tuple[Tensor, Tensor]:
    """All four rotations of each image: (B, C, S, S) -> (4B, C, S, S) and labels int64 (4B,).

    Row 4i+k is image i turned by k * 90 degrees counter-clockwise: 1 = transpose then vertical flip, 2 =
    both flips, 3 = vertical flip then transpose (Kolesnikov et al. 2019; protocols.md 1.5).
    """
    turned = torch.stack([torch.rot90(x, k, dims=(-2, -1)) for k in range(4)], dim=1)
    return turned.flatten(0, 1), torch.arange(4, device=x.device).repeat(x.shape[0])


def random_hflip(x: Tensor, rng: SampleRNG) -> Tensor:
    """Horizontal flip of half the samples, of all tiles alike: dtype and shape of x."""
    return torch.where(_some(x, rng, "mirror", 0.5, each=False), x.flip(-1), x)


def windows(x: Tensor, size: int) -> Tensor:
    """All size x size windows of (B, C, H, W), as a view (B, C, H-size+1, W-size+1, size, size)."""
    return x.unfold(-2, size, 1).unfold(-2, size, 1)


def _room(x: Tensor, size: int) -> tuple[int, int]:
    """Pixels of the height and the width of (..., H, W) that a crop leaves."""
    room = x.shape[-2] - size, x.shape[-1] - size
    if min(room) < 0:
        raise ValueError(f"Images of {x.shape[-2]}x{x.shape[-1]} have no crop of {size}x{size}; make them larger.")
    return room


def random_corners(x: Tensor, rng: SampleRNG | None, size: int, *, purpose: str = "crop") -> tuple[Tensor, Tensor]:
    """Top and left, int64 (B,), on the CPU, of a size x size crop of each image; the center without `rng`."""
    if rng is None:
        top, left = (torch.full((len(x),), r // 2, dtype=torch.int64) for r in _room(x, size))
    else:
        drawn = zip("yx", _room(x, size), strict=True)
        top, left = (rng.host.integers(f"{purpose}/{a}", 1, r + 1)[:, 0] for a, r in drawn)
    return top, left


def random_crop(x: Tensor, rng: SampleRNG, size: int) -> Tensor:
    """Random square crop of each image: (B, C, H, W) -> (B, C, size, size)."""
    top, left = to_device(torch.stack(random_corners(x, rng, size)), x.device)
    return windows(x, size)[torch.arange(len(x), device=x.device), :, top, left]


def center_crop(x: Tensor, size: int) -> Tensor:
    """The size x size center of (..., H, W), rounded to the upper left: a view."""
    top, left = (room // 2 for room in _room(x, size))
    return x[..., top : top + size, left : left + size]
