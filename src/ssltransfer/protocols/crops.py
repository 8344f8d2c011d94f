"""Test images as one center crop or as ten."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.data.device_ops import center_crop
from ssltransfer.data.loader import Batch
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.protocols.base import EvalContext
from ssltransfer.protocols.distributed import distributed_map

BATCH = 64

T = TypeVar("T")


def map_crops(
    context: EvalContext, backbone: BackboneOptions, crops: int, measure: Callable[[list[Tensor]], T]
) -> list[T]:
    """What is found of one or ten crops, uint8 (B, 3, S, S) on the device, of each batch of test images, in order."""

    def cut(batch: Batch) -> T:
        images = batch.images
        return measure([center_crop(images, backbone.img_size)] if crops == 1 else ten_crops(images, backbone.img_size))

    view = ResizeCenterCrop(backbone.short_side, backbone.short_side)
    return distributed_map(context.test, view, BATCH, cut, context.devices)


def ten_crops(images: Tensor, size: int) -> list[Tensor]:
    """(B, C, H, W) -> the four corners and the center, size x size, and their mirror images."""
    top, left = images.shape[-2] - size, images.shape[-1] - size
    five = [images[..., y : y + size, x : x + size] for y, x in ((0, 0), (0, left), (top, 0), (top, left))]
    five.append(center_crop(images, size))
    return [*five, *(crop.flip(-1) for crop in five)]
