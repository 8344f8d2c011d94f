"""Test images as one center crop or as ten crops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.data.device_ops import center_crop
from ssltransfer.data.loader import Batch
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.protocols.base import EvalContext
from ssltransfer.protocols.harness import predict

BATCH = 64

T = TypeVar("T")


def predict_crops(
    context: EvalContext, model: nn.Module, backbone: BackboneOptions, crops: int, forward: Callable[[list[Tensor]], T]
) -> list[T]:
    """`forward` of one or ten crops, each uint8 (B, 3, S, S) on the device, for each batch of test images, in order."""

    def crop(batch: Batch) -> T:
        images, size = batch.images, backbone.img_size
        return forward([center_crop(images, size)] if crops == 1 else ten_crops(images, size))

    return predict(context, model, crop, ResizeCenterCrop(backbone.short_side, backbone.short_side), BATCH)


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
