"""CPU transforms: from a decoded image to one or several fixed-size uint8 crops, with its targets.

Everything else (tiles, flips, grayscale, normalization) is batched work on the device.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.artifacts.index import Index
from ssltransfer.data.device_ops import center_crop

LONGEST_ASPECT = 20  # [chosen] photographs and panoramas stay whole


class Transform(ABC):
    """Prepares an image, and the targets that belong to it, in a worker or in several threads of the loader.

    Attributes:
        padding: None if the tensors of all images have one shape. Otherwise a batch pads each tensor at its ends to the
            largest one, with the value under the tensor's name (default 0), and records the images' `sizes`.
    """

    padding: ClassVar[Mapping[str, float] | None] = None

    @property
    def min_short_side(self) -> int | None:
        """Pixels on the short side that the transform needs; the decoder may deliver a smaller JPEG then."""
        return None

    @abstractmethod
    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """Transform an image, uint8 (3, H, W), of a sample: returns `image`, uint8 (3, h, w), and targets by name.

        `rng` is seeded by (seed, epoch, sample). Raises `ArtifactError` if a target cannot be read.
        """


class ImageTransform(Transform):
    """A transform of the image alone."""

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """`image` only."""
        return {"image": self.apply(image, rng)}

    @abstractmethod
    def apply(self, image: Tensor, rng: Random) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, h, w)."""


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, height, width), antialiased bilinear, as torchvision's resize."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image[None], (height, width), mode="bilinear", antialias=True, align_corners=False)[0]


def resize_short(image: Tensor, short: int) -> Tensor:
    """Resize the short side to `short` pixels and keep the aspect ratio."""
    height, width = image.shape[-2:]
    if height <= width:
        return resize(image, short, max(short, round(width * short / height)))
    return resize(image, max(short, round(height * short / width)), short)


def _central(image: Tensor) -> Tensor:
    """The central part of a very long strip: enlarging all of it would take gigabytes of memory.

    Images with an aspect ratio of up to LONGEST_ASPECT stay whole.
    """
    height, width = image.shape[-2:]
    top, left = (max(0, (long - LONGEST_ASPECT * short) // 2) for long, short in ((height, width), (width, height)))
    return image[..., top : height - top, left : width - left]


@dataclass(frozen=True)
class ResizeCenterCrop(ImageTransform):
    """Short side to `short_side`, then the central `size` x `size` (Noroozi: 256, then 255, 227 or 224)."""

    short_side: int
    size: int

    @property
    def min_short_side(self) -> int:
        """`short_side`."""
        return self.short_side

    def apply(self, image: Tensor, rng: Random) -> Tensor:
        """(3, H, W) -> (3, size, size)."""
        return center_crop(resize_short(_central(image), self.short_side), self.size)


@dataclass(frozen=True)
class Warp(ImageTransform):
    """Resize the whole image to size x size and ignore the aspect ratio (Caffe's ImageNet preparation)."""

    size: int

    @property
    def min_short_side(self) -> int:
        """`size`."""
        return self.size

    def apply(self, image: Tensor, rng: Random) -> Tensor:
        """(3, H, W) -> (3, size, size)."""
        return resize(image, self.size, self.size)


@dataclass(frozen=True)
class RandomResizedCrop(ImageTransform):
    """A random box of the image's area and aspect, resized (Szegedy et al. 2015; torchvision's defaults)."""

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    @property
    def min_short_side(self) -> int:
        """Large enough that the smallest box is not enlarged from a reduced decoding."""
        return round(self.size / math.sqrt(self.scale[0]))

    def apply(self, image: Tensor, rng: Random) -> Tensor:
        """(3, H, W) -> (3, size, size)."""
        top, left, height, width = self.box(image.shape[-2], image.shape[-1], rng)
        return resize(image[:, top : top + height, left : left + width], self.size, self.size)

    def box(self, height: int, width: int, rng: Random) -> tuple[int, int, int, int]:
        """Top, left, height, width; after ten failed draws the largest central box of an allowed aspect."""
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return rng.randint(0, height - h), rng.randint(0, width - w), h, w
        w, h = width, height
        if width / height < self.ratio[0]:
            h = min(height, round(width / self.ratio[0]))
        elif width / height > self.ratio[1]:
            w = min(width, round(height * self.ratio[1]))
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class Views(ImageTransform):
    """Several independent random crops of one image; a batch is (B, count, 3, size, size)."""

    crop: RandomResizedCrop
    count: int

    @property
    def min_short_side(self) -> int:
        """As the crop's."""
        return self.crop.min_short_side

    def apply(self, image: Tensor, rng: Random) -> Tensor:
        """(3, H, W) -> (count, 3, size, size)."""
        return torch.stack([self.crop.apply(image, rng) for _ in range(self.count)])
