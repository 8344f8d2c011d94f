"""Test pictures as one centre crop or as ten."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.data.batches import load_batches, sequential_keys
from ssltransfer.data.device_ops import centre_crop
from ssltransfer.data.transforms import CentreSquare
from ssltransfer.stages.evaluate.base import Given
from ssltransfer.training.progress import Progress

BATCH = 64


def crops_of_test(given: Given, trunk: TrunkOptions, crops: int) -> Iterator[list[Tensor]]:
    """The test pictures in order, a batch at a time: one or ten uint8 (B, 3, S, S) on the device."""
    n, devices = len(given.test), given.devices
    view = CentreSquare(trunk.short_side, trunk.short_side)
    progress = Progress("test", 0, -(-n // BATCH), BATCH)
    for batch in load_batches(given.test, view, sequential_keys(range(n), BATCH), seed=0, workers=devices.workers):
        pictures = batch.pictures.to(devices.device)
        yield [centre_crop(pictures, trunk.size)] if crops == 1 else ten_crops(pictures, trunk.size)
        progress.step(0.0)
        progress.say(f"{crops} crops a picture")
    progress.close()


def ten_crops(pictures: Tensor, size: int) -> list[Tensor]:
    """(B, C, H, W) -> the four corners and the centre, size x size, and their mirror images."""
    top, left = pictures.shape[-2] - size, pictures.shape[-1] - size
    five = [pictures[..., y : y + size, x : x + size] for y, x in ((0, 0), (0, left), (top, 0), (top, left))]
    five.append(centre_crop(pictures, size))
    return [*five, *(crop.flip(-1) for crop in five)]
