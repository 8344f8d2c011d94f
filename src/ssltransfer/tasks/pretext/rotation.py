"""Rotation (Gidaris et al. 2018): classify the rotation of an image by quarter turns."""

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
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, PretextTask, backbone_of
from ssltransfer.tasks.pretext.pooled_backbone import PooledBackbone
from ssltransfer.training.task import accuracy


@PRETEXT_TASKS.register(Rotation)
class RotationTask(PretextTask):
    """All four rotations of each image are in the same batch (protocols 1.5).

    Augmentation: a random resized crop with ImageNet's mean and standard deviation (the AlexNet variant of Gidaris et
    al.), Inception's (Kolesnikov et al. 2019: smaller crops, distorted colors, range [-1, 1]; protocols 1.10), or a
    random crop. Validation images are a center crop, 87.5 % of the short side, without augmentation.

    Head: one linear layer on backbones that end with a vector (`BackboneOptions.embedding_layer`), such as the global
    average of a residual network. The others have pool5, fc6 and fc7 without bias, each with batch normalization
    (RotNet's AlexNet-BN, protocols 2.1c), and a linear layer.
    """

    def __init__(self, options: Rotation, backbone: BackboneOptions | Backbone, seed: int):
        super().__init__()
        self.options = options
        self.normalization = options.normalization
        self.backbone = backbone_of(backbone, seed)
        self.size, self.short_side = self.backbone.options.img_size, self.backbone.options.short_side
        vector = self.backbone.options.embedding_layer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            last = nn.Linear(options.hidden_dim, 4)
            if vector:
                last = nn.Linear(self.backbone.shapes()[vector][0], 4)
                self.head = nn.Sequential(last)
            else:
                pooled = PooledBackbone(self.backbone, self.size, "Images")
                fc6, fc7 = _block(pooled.features, options.hidden_dim), _block(options.hidden_dim, options.hidden_dim)
                self.head = nn.Sequential(pooled, *fc6, *fc7, last)
                for layer in (*fc6, *fc7):
                    initialize(layer)
            initialize_last(last)
        self.chance_loss = math.log(4)

    @property
    def transform(self) -> Transform:
        """A random resized crop, or the square from which the device crops."""
        if self.options.augment == "crop":
            return ResizeCenterCrop(self.short_side, self.short_side)
        return RandomResizedCrop(self.size, scale=(0.05 if self.options.augment == "inception" else 0.08, 1.0))

    @property
    def val_transform(self) -> Transform:
        """The center crop."""
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
        """The four rotations."""
        turned = visible(self.inputs(batch.images, rng)[0]).unflatten(0, (-1, 4)).unbind(1)
        return [
            ("image", batch.images),
            *((f"answer: {turns * 90} degrees", one) for turns, one in enumerate(turned)),
        ]


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)
