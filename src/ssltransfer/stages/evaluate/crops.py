"""Test pictures as one centre crop or as ten."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.data.batches import Batch
from ssltransfer.data.device_ops import centre_crop
from ssltransfer.data.transforms import CentreSquare
from ssltransfer.stages.evaluate.base import Given
from ssltransfer.stages.evaluate.turns import in_turns

BATCH = 64

T = TypeVar("T")


def of_crops(given: Given, trunk: TrunkOptions, crops: int, measure: Callable[[list[Tensor]], T]) -> list[T]:
    """What is found of one or ten crops, uint8 (B, 3, S, S) on the device, of each batch of test pictures, in order."""

    def cut(batch: Batch) -> T:
        pictures = batch.pictures
        return measure([centre_crop(pictures, trunk.size)] if crops == 1 else ten_crops(pictures, trunk.size))

    view = CentreSquare(trunk.short_side, trunk.short_side)
    return in_turns(given.test, view, BATCH, cut, given.devices)


def ten_crops(pictures: Tensor, size: int) -> list[Tensor]:
    """(B, C, H, W) -> the four corners and the centre, size x size, and their mirror images."""
    top, left = pictures.shape[-2] - size, pictures.shape[-1] - size
    five = [pictures[..., y : y + size, x : x + size] for y, x in ((0, 0), (0, left), (top, 0), (top, left))]
    five.append(centre_crop(pictures, size))
    return [*five, *(crop.flip(-1) for crop in five)]
