"""Images with depth maps: resized on the CPU, augmented together on the device (protocols 4.7)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.artifacts.index import Index
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.targets import read_target
from ssltransfer.data.transforms import Transform, resize


@dataclass(frozen=True)
class RgbdResize(Transform):
    """Resize to `image` and `depth`, float32 meters, of height x width pixels; 0 for no value.

    An image of another aspect is cropped to its largest central part. Pixels of the image are averaged; those of depth
    are nearest neighbors, because the mean of two distances belongs to neither object.
    """

    height: int
    width: int

    @property
    def min_short_side(self) -> int:
        """Short side that suffices whichever side is cropped."""
        return max(self.height, self.width)

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """uint8 (3, H, W) -> image uint8 (3, height, width), depth float32 (height, width)."""
        depth = np.asarray(read_target(index, sample))
        top, left, height, width = self.part(*depth.shape)
        rows = top + (np.arange(self.height) + 0.5) * height // self.height
        columns = left + (np.arange(self.width) + 0.5) * width // self.width
        picked = depth[rows.astype(int)[:, None], columns.astype(int)]
        return {"image": self.image(image), "depth": torch.from_numpy(picked)}

    def image(self, image: Tensor) -> Tensor:
        """uint8 (3, H, W) -> (3, height, width)."""
        top, left, height, width = self.part(*image.shape[-2:])
        return resize(image[:, top : top + height, left : left + width], self.height, self.width)

    def part(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of the largest central part of the wanted aspect."""
        high = min(height, max(1, round(width * self.height / self.width)))
        wide = min(width, max(1, round(height * self.width / self.height)))
        return (height - high) // 2, (width - wide) // 2, high, wide


@dataclass(frozen=True)
class RgbdCenterCrop(Transform):
    """Resize the image to `whole` and crop its center of height x width; crop the depth map at its own resolution."""

    whole: RgbdResize
    height: int
    width: int
    padding: ClassVar[Mapping[str, float]] = {"rows": 2.0, "columns": 2.0}

    @property
    def min_short_side(self) -> int:
        """Short side of the resized image."""
        return self.whole.min_short_side

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """uint8 (3, H, W) -> image uint8 (3, height, width), depth float32 (h, w), `rows` and `columns`.

        rows float32 (h,), columns float32 (w,): positions of the map's rows and columns in the center, from -1 at one
        edge to 1 at the other; 2 where a batch is padded.
        """
        small = self.whole.image(image)
        up, across = (self.whole.height - self.height) // 2, (self.whole.width - self.width) // 2
        depth = np.asarray(read_target(index, sample))
        top, left, high, wide = self.whole.part(*depth.shape)
        rows = _places(depth.shape[0], top, high, self.whole.height, up, self.height)
        columns = _places(depth.shape[1], left, wide, self.whole.width, across, self.width)
        inside = np.abs(rows) < 1, np.abs(columns) < 1
        return {
            "image": small[:, up : up + self.height, across : across + self.width],
            "depth": torch.from_numpy(depth[inside[0]][:, inside[1]]),
            "rows": torch.from_numpy(rows[inside[0]].astype(np.float32)),
            "columns": torch.from_numpy(columns[inside[1]].astype(np.float32)),
        }


def _places(length: int, start: int, span: int, size: int, offset: int, crop: int) -> np.ndarray:
    """float64 (length,): pixel centers of a side; `span` of them from `start` on become `size`, then are cropped."""
    return ((np.arange(length) + 0.5 - start) / span * size - offset) / crop * 2 - 1


def bilinear_sample(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sample maps float32 (B, h, w) bilinearly at rows (B, H) and columns (B, W), -1 to 1 each: (B, H, W).

    If the positions are the centers of a finer grid, this is torch's bilinear resizing.
    """
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), dim=-1)
    found = F.grid_sample(maps[:, None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found[:, 0]


def augment(
    images: Tensor,
    depth: Tensor,
    rng: SampleRNG,
    *,
    crop: tuple[int, int],
    zoom: tuple[float, float] = (1.0, 1.0),
    rotation: float = 0.0,
    mirror: bool = False,
) -> tuple[Tensor, Tensor]:
    """Random scale, rotation, crop and flip of each image and its depth map (Eigen et al. 2014).

    Enlarging by s divides depth by s, because objects look s times as near. Pixels that a rotation brings in from
    outside have no depth and repeat the edge of the image.

    Args:
        images: uint8 or float (B, 3, H, W).
        depth: float32 (B, H, W), 0 for no value.
        rng: random numbers of the images.
        crop: height and width of the result.
        zoom: the scale is uniform between these.
        rotation: degrees; the angle is uniform in -+ this.
        mirror: flip left to right with probability 0.5.

    Returns:
        float32 (B, 3, h, w) and (B, h, w).
    """
    (height, width), (h, w) = images.shape[-2:], crop
    device = images.device
    scale = rng.uniform("zoom", 1, *zoom)
    angle = rng.uniform("rotation", 1, -rotation, rotation) * (math.pi / 180)
    sign = torch.where(rng.uniform("mirror", 1) < (0.5 if mirror else 0.0), -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    # Margin between the borders of the image and of the rotated crop, both measured from their centers.
    room_y = (height - (cos * h + sin.abs() * w) / scale).clamp(min=0) / 2
    room_x = (width - (cos * w + sin.abs() * h) / scale).clamp(min=0) / 2
    ys = (torch.arange(h, device=device) + 0.5 - h / 2).view(1, h, 1)
    xs = (torch.arange(w, device=device) + 0.5 - w / 2).view(1, 1, w) * sign[:, :, None]
    cos, sin, factor = cos[:, :, None], sin[:, :, None], scale[:, :, None]
    y = (sin * xs + cos * ys) / factor + (room_y * rng.uniform("crop/y", 1, -1.0, 1.0))[:, :, None]
    x = (cos * xs - sin * ys) / factor + (room_x * rng.uniform("crop/x", 1, -1.0, 1.0))[:, :, None]
    grid = torch.stack((x / (width / 2), y / (height / 2)), dim=-1)
    seen = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    far = F.grid_sample(depth[:, None], grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return seen, far[:, 0] / factor


def channel_jitter(images: Tensor, rng: SampleRNG, low: float, high: float) -> Tensor:
    """Multiply each channel of each image by its own random factor and clip: float32 (B, 3, H, W), 0 to 255."""
    factors = rng.uniform("tint", 3, low, high)
    return (images.float() * factors[:, :, None, None]).clamp(0, 255)
