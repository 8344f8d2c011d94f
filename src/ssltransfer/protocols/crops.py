"""Test images as one center crop or as ten crops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ssltransfer.data.device_ops import center_crop, random_crop, random_hflip
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import ResizeCenterCrop, Transform
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.protocols.base import EvalContext
from ssltransfer.protocols.harness import predict
from ssltransfer.training.task import Task

BATCH = 64

T = TypeVar("T")


class CropTask(Task):
    """A task on crops of the central square, random and flipped half the time in training.

    Attributes:
        model: the evaluated model.
    """

    model: PretrainedModel

    @property
    def transform(self) -> ResizeCenterCrop:
        """The central square; it is cropped on the device."""
        backbone = self.model.backbone.options
        return ResizeCenterCrop(backbone.short_side, backbone.short_side)

    @property
    def val_transform(self) -> Transform:
        """The center crop."""
        return self.model.view

    def augment(self, images: Tensor, rng: SampleRNG) -> Tensor:
        """uint8 (B, 3, H, W) -> uint8 (B, 3, S, S) while training; unchanged otherwise."""
        if not self.training:
            return images
        return random_hflip(random_crop(images, rng, self.model.backbone.options.img_size), rng)


def predict_crops(context: EvalContext, task: CropTask, crops: int, forward: Callable[[list[Tensor]], T]) -> list[T]:
    """`forward` of one or ten crops, each uint8 (B, 3, S, S) on the device, for each batch of test images, in order."""
    size = task.model.backbone.options.img_size

    def crop(batch: Batch) -> T:
        return forward([center_crop(batch.images, size)] if crops == 1 else ten_crops(batch.images, size))

    return predict(context, task, crop, task.transform, BATCH)


def ten_crops(images: Tensor, size: int) -> list[Tensor]:
    """(B, C, H, W) -> the four corners and the center, size x size, and their mirror images."""
    top, left = images.shape[-2] - size, images.shape[-1] - size
    five = [images[..., y : y + size, x : x + size] for y, x in ((0, 0), (0, left), (top, 0), (top, left))]
    five.append(center_crop(images, size))
    return [*five, *(crop.flip(-1) for crop in five)]


def mean_softmax(logits: list[Tensor]) -> np.ndarray:
    """float32 (B, K), mean over crops of the softmax of their logits (B, K)."""
    probabilities: np.ndarray = torch.stack([one.float().softmax(1) for one in logits]).mean(0).cpu().numpy()
    return probabilities
