"""Rotation (Gidaris et al. 2018): by how many quarter turns was the image turned?"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import Rotation
from ssltransfer.data.colors import color_jitter
from ssltransfer.data.device_ops import random_crop, random_hflip, rotate4
from ssltransfer.data.drawing import visible
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import RandomResizedCrop, ResizeCenterCrop, Transform
from ssltransfer.models.backbone import Backbone, initialize, initialize_last
from ssltransfer.models.build import build_backbone
from ssltransfer.models.normalize import Normalize, normalize
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, PretextTask
from ssltransfer.tasks.pretext.pooled_backbone import PooledBackbone
from ssltransfer.training.task import accuracy


@PRETEXT_TASKS.register(Rotation)
class RotationTask(PretextTask):
    """All four rotations of each image stand in the same batch (protocols 1.5).

    Augmentation: a random box with ImageNet's mean and deviation (the AlexNet variant of Gidaris et al.), Inception's
    (Kolesnikov et al. 2019: smaller boxes, distorted colors, range [-1, 1]; protocols 1.10), or a plain random crop.
    Validation images are the central crop, 87.5 % of the short side, neither mirrored nor distorted.

    Head: a residual network has its global average and one linear layer, and so has any that ends with a vector
    (`BackboneOptions.embedding_layer`). The others have pool5, fc6 and fc7 without
    bias, each with batch normalization (RotNet's AlexNet-BN, protocols 2.1c), and a linear layer; the convolutions are
    those of the backbone that was asked for, without batch normalization unless it has its own.
    """

    def __init__(self, options: Rotation, backbone: BackboneOptions, seed: int, shared: Backbone | None = None):
        super().__init__()
        self.options = options
        self.normalization: Normalize = "half" if options.augment == "inception" else "imagenet"
        self.backbone = shared if shared is not None else build_backbone(backbone, include_top=False, seed=seed)
        self.size, self.short_side = backbone.img_size, backbone.short_side
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            last = nn.Linear(options.hidden_dim, 4)
            if backbone.embedding_layer:
                last = nn.Linear(self.backbone.shapes()[backbone.embedding_layer][0], 4)
                self.head = nn.Sequential(last)
            else:
                pooled = PooledBackbone(self.backbone, backbone.img_size, "Images")
                fc6, fc7 = _block(pooled.features, options.hidden_dim), _block(options.hidden_dim, options.hidden_dim)
                self.head = nn.Sequential(pooled, *fc6, *fc7, last)
                for layer in (*fc6, *fc7):
                    initialize(layer)
            initialize_last(last)
        self.chance_loss = math.log(4)

    @property
    def transform(self) -> Transform:
        """A random box, or the square from which the device crops."""
        if self.options.augment == "crop":
            return ResizeCenterCrop(self.short_side, self.short_side)
        return RandomResizedCrop(self.size, scale=(0.05 if self.options.augment == "inception" else 0.08, 1.0))

    @property
    def val_transform(self) -> Transform:
        """The central crop."""
        return ResizeCenterCrop(self.short_side, self.size)

    def inputs(self, images: Tensor, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) -> float (4B, 3, size, size), normalized, and quarter turns int64 (4B,)."""
        if self.training:
            if self.options.augment == "crop":
                images = random_crop(images, rng, self.size)
            images = random_hflip(images, rng)
            if self.options.augment == "inception":
                images = color_jitter(images, rng)
        turned, label = rotate4(images)
        return normalize(turned, self.normalization), label

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy over the four rotations."""
        inputs, label = self.inputs(batch.images, rng)
        vector = self.backbone.options.embedding_layer
        if vector:
            inputs = self.backbone(inputs, [vector])[vector]
        logits = self.head(inputs)
        return {"loss": F.cross_entropy(logits, label), "accuracy": accuracy(logits, label)}

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """Each of the four."""
        turned = visible(self.inputs(batch.images, rng)[0]).unflatten(0, (-1, 4)).unbind(1)
        return [
            ("image", batch.images),
            *((f"answer: {turns * 90} degrees", one) for turns, one in enumerate(turned)),
        ]


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)
