"""What a CPU core does per image after decoding: resize and crop to one fixed-size uint8 square (or a few).

Everything else (tiles, mirror, gray, normalization) is batched work on the device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.artifacts.index import Index


class JointTransform(ABC):
    """A transform of a image together with what it comes with; images may have different sizes.

    Attributes:
        padding: name of a tensor -> value that fills it up at its ends, where those of a batch differ in shape.
    """

    padding: ClassVar[Mapping[str, float]] = {}

    @abstractmethod
    def pair(self, index: Index, sample: int, image: Tensor, random: Random) -> dict[str, Tensor]:
        """uint8 (3, H, W) -> `image`, uint8 (3, h, w), and other tensors by name.

        Raises:
            ArtifactError: what the image comes with cannot be read.
        """


Transform = Callable[[Tensor, Random], Tensor] | JointTransform


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, height, width), antialiased bilinear, as torchvision's resize."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image[None], (height, width), mode="bilinear", antialias=True, align_corners=False)[0]


def resize_short(image: Tensor, short: int) -> Tensor:
    """Short side to `short` pixels, aspect kept."""
    height, width = image.shape[-2:]
    if height <= width:
        return resize(image, short, max(short, round(width * short / height)))
    return resize(image, max(short, round(height * short / width)), short)


@dataclass(frozen=True)
class ResizeCenterCrop:
    """Short side to `short_side`, then the central `size` x `size` (Noroozi: 256, then 255, 227 or 224)."""

    short_side: int
    size: int

    @property
    def min_short_side(self) -> int:
        """What the decoder must deliver at least."""
        return self.short_side

    def __call__(self, image: Tensor, random: Random) -> Tensor:
        """(3, H, W) -> (3, size, size)."""
        resized = resize_short(image, self.short_side)
        top, left = (resized.shape[-2] - self.size) // 2, (resized.shape[-1] - self.size) // 2
        return resized[:, top : top + self.size, left : left + self.size]


@dataclass(frozen=True)
class Warp:
    """The whole image squeezed to size x size, aspect lost (Caffe's ImageNet preparation)."""

    size: int

    @property
    def min_short_side(self) -> int:
        """What the decoder must deliver at least."""
        return self.size

    def __call__(self, image: Tensor, random: Random) -> Tensor:
        """(3, H, W) -> (3, size, size)."""
        return resize(image, self.size, self.size)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random box of the image's area and aspect, resized (Szegedy et al. 2015; torchvision's defaults)."""

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    @property
    def min_short_side(self) -> int:
        """What the decoder must deliver at least: a small box must not be blown up from a small decoding."""
        return round(self.size / math.sqrt(self.scale[0]))

    def __call__(self, image: Tensor, random: Random) -> Tensor:
        """(3, H, W) -> (3, size, size)."""
        top, left, height, width = self.box(image.shape[-2], image.shape[-1], random)
        return resize(image[:, top : top + height, left : left + width], self.size, self.size)

    def box(self, height: int, width: int, random: Random) -> tuple[int, int, int, int]:
        """Top, left, height, width; after ten misses the largest central box of an allowed aspect."""
        for _ in range(10):
            area = height * width * random.uniform(*self.scale)
            aspect = math.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return random.randint(0, height - h), random.randint(0, width - w), h, w
        w, h = width, height
        if width / height < self.ratio[0]:
            h = min(height, round(width / self.ratio[0]))
        elif width / height > self.ratio[1]:
            w = min(width, round(height * self.ratio[1]))
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class Views:
    """Several views of one image, each cut by itself: the device sees (B, count, 3, S, S)."""

    cut: RandomResizedCrop
    count: int

    @property
    def min_short_side(self) -> int:
        """What the decoder must deliver at least."""
        return self.cut.min_short_side

    def __call__(self, image: Tensor, random: Random) -> Tensor:
        """(3, H, W) -> (count, 3, size, size)."""
        return torch.stack([self.cut(image, random) for _ in range(self.count)])
