"""The common part of evaluations of several layers: crops of training and test images, and the choice of layers."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssltransfer.config.protocols import FinetuneFromLayer, LinearProbePerLayer
from ssltransfer.data.device_ops import center_crop, random_crop, random_hflip
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.protocols.base import EvalContext
from ssltransfer.protocols.harness import predict
from ssltransfer.training.task import Task

BATCH = 64


class CropTask(Task):
    """A task on crops of the central square, random and flipped half the time in training.

    Attributes:
        model: the evaluated model.
        options: of the protocol.
    """

    model: PretrainedModel
    options: LinearProbePerLayer | FinetuneFromLayer

    @property
    def transform(self) -> ResizeCenterCrop:
        """The central square; it is cropped on the device."""
        side = self.model.backbone.options.short_side
        return ResizeCenterCrop(side, side)

    @property
    def val_transform(self) -> ResizeCenterCrop:
        """The center crop."""
        return self.model.view

    def augment(self, images: Tensor, rng: SampleRNG) -> Tensor:
        """uint8 (B, 3, H, W) -> uint8 (B, 3, S, S) while training; unchanged otherwise."""
        if not self.training:
            return images
        return random_hflip(random_crop(images, rng, self.model.backbone.options.img_size), rng)

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> float (..., B, K), with a leading axis if there are several classifiers."""

    def predict(self, context: EvalContext) -> np.ndarray:
        """Predicted class of each test image, int64 (..., N), by the mean score of its crops (`crop_scores`)."""
        size = self.model.backbone.options.img_size

        def classify(batch: Batch) -> np.ndarray:
            crops = [center_crop(batch.images, size)] if self.options.crops == 1 else ten_crops(batch.images, size)
            logits = torch.stack([self.logits(crop).float() for crop in crops])
            scores = logits if self.options.crop_scores == "logits" else logits.softmax(-1)
            classes: np.ndarray = scores.mean(0).cpu().numpy().argmax(-1)
            return classes

        return np.concatenate(predict(context, self, classify, self.transform, BATCH), axis=-1)


def ten_crops(images: Tensor, size: int) -> list[Tensor]:
    """(B, C, H, W) -> the four corners and the center, size x size, and their mirror images."""
    top, left = images.shape[-2] - size, images.shape[-1] - size
    five = [images[..., y : y + size, x : x + size] for y, x in ((0, 0), (0, left), (top, 0), (top, left))]
    five.append(center_crop(images, size))
    return [*five, *(crop.flip(-1) for crop in five)]


def layers_to_measure(backbone: Backbone, layers: tuple[str, ...] | None, where: Path) -> tuple[str, ...]:
    """The given layers, or `default_layers`.

    Raises:
        LayerError: the model whose manifest is `where` has no such layer.
    """
    layers = layers or default_layers(backbone)
    backbone.require(layers, where)
    return layers


def default_layers(backbone: Backbone) -> tuple[str, ...]:
    """Every convolutional map; the vectors of a backbone that has no maps (HOG)."""
    shapes = backbone.shapes()
    names = tuple(name for name in backbone.layers if name in backbone.options.base_layers)
    return tuple(name for name in names if len(shapes[name]) == 3) or names


def best_layer(values: Mapping[str, list[float]]) -> str:
    """The layer with the best mean over seeds."""
    return max(values, key=lambda layer: sum(values[layer]))
