"""Color distortion of batches on the device: brightness, contrast, saturation and hue, in a random order."""

import torch
from torch import Tensor

from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transfer import to_device

_LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights


def color_jitter(
    x: Tensor,
    rng: SampleRNG,
    *,
    brightness: tuple[float, float] = (0.875, 1.125),
    contrast: tuple[float, float] = (0.5, 1.5),
    saturation: tuple[float, float] = (0.5, 1.5),
    hue: float = 0.2,
    purpose: str = "colors",
) -> Tensor:
    """Inception's color distortion, parametrized as torchvision's ColorJitter (protocols.md 1.10).

    Each image has its own four factors and its own order of the four steps; every step is clipped.

    Args:
        x: uint8 or float (B, 3, H, W) RGB on the scale 0 to 255.
        rng: random numbers of the images.
        brightness, contrast, saturation: factors are uniform between these two.
        hue: shift is uniform in -+ this, in turns of the color circle.
        purpose: of the random numbers.

    Returns:
        float32 (B, 3, H, W), 0 to 255.
    """
    values = x.float() / 255
    ranges = (brightness, contrast, saturation, (-hue, hue))
    low, high = torch.tensor(ranges, dtype=torch.float64).unbind(1)
    center, spread = (((high + sign * low) / 2).float() for sign in (1, -1))
    factors = center + spread * rng.host.uniform(f"{purpose}/factors", 4, -1.0, 1.0)
    order = rng.host.permutation(f"{purpose}/order", 4)
    # In each turn the images of the same step are neighbors, so that one kernel serves them all.
    rows = [turn.argsort(stable=True) for turn in order.unbind(1)]
    inverse = [one.argsort() for one in rows]
    back = torch.arange(len(x))
    for turn, row, place in zip(order.unbind(1), rows, inverse, strict=True):
        values = values[to_device(back[row], x.device)]
        counts = turn.bincount(minlength=4).tolist()
        amounts = to_device(factors[row, turn[row]], x.device).view(-1, 1, 1, 1).split(counts)
        parts = zip((_brighten, _contrast, _saturate, _shift_hue), values.split(counts), amounts, strict=True)
        values = torch.cat([step(part, amount) for step, part, amount in parts if len(part)]).clamp(0, 1)
        back = place
    return values[to_device(back, x.device)] * 255


def _luma(x: Tensor) -> Tensor:
    red, green, blue = x.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).unsqueeze(1)


def _brighten(x: Tensor, factor: Tensor) -> Tensor:
    return x * factor


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    mean = _luma(x).mean((1, 2, 3), keepdim=True, dtype=torch.float64).float()
    return factor * x + (1 - factor) * mean


def _saturate(x: Tensor, factor: Tensor) -> Tensor:
    return factor * x + (1 - factor) * _luma(x)


def _shift_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue by `shift` turns: RGB to HSV and back."""
    value, lowest = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = value - lowest
    safe = torch.where(chroma == 0, 1.0, chroma)
    red, green, blue = x.split(1, dim=1)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = (sector / 6 + shift) % 1 * 6
    channels = []
    for offset in (5, 3, 1):
        k = (offset + turned) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.cat(channels, dim=1)
