"""A classifier from scratch: what cluster classification and the supervised control share."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.entities import Student
from ssltransfer.data.batches import Batch
from ssltransfer.data.device_ops import centre_crop, mirror_some, random_crop
from ssltransfer.data.draws import Draws
from ssltransfer.data.transforms import CentreSquare, RandomResizedCrop, Transform, Warp
from ssltransfer.models.build import build_trunk
from ssltransfer.models.normalise import Normalise, normalise
from ssltransfer.models.trunk import initialise_last
from ssltransfer.training.task import Task, accuracy


class Classifier(Task):
    """A trunk with a fresh k-way layer, trained by cross-entropy on one label a picture.

    The standard supervised CaffeNet recipe (bvlc_reference_caffenet; Noroozi et al. 2018: pseudo-labels are learned
    with it): 256 x 256 warp, random 227 crop, mirror. The head stays behind when the trunk is written.

    Args:
        spec: trunk, augmentation and seed.
        labels: int (N,), one label for each picture of the training index.
        heldout: int (M,), the same for held-out pictures, or None.
        classes: k.
    """

    rule: Normalise = "imagenet"

    def __init__(self, spec: Student, labels: np.ndarray, heldout: np.ndarray | None, classes: int):
        super().__init__()
        self.spec = spec
        dropout = spec.method.dropout
        self.trunk = build_trunk(spec.trunk, top=True, seed=spec.seed, dropout=dropout)
        last = self.trunk.layers[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed + 1)
            # Caffe's and VGG's networks have dropout before their last layer; torchvision's others have not.
            before = nn.Dropout(dropout) if spec.trunk.dropout_before_classifier else nn.Identity()
            last_layer = nn.Linear(self.trunk.shapes()[last][0], classes)
            initialise_last(last_layer)
            self.head = nn.Sequential(before, last_layer)
        # Not in the checkpoint: they come from the labels' file.
        self.register_buffer("labels", torch.from_numpy(labels.astype(np.int64)), persistent=False)
        held = labels[:0] if heldout is None else heldout
        self.register_buffer("heldout_labels", torch.from_numpy(held.astype(np.int64)), persistent=False)
        self.guess = math.log(classes)

    @property
    def transform(self) -> Transform:
        """CPU part: a warp or square from which the device crops, or the random box itself."""
        trunk = self.spec.trunk
        if self.spec.method.augment == "random-resized-crop":
            return RandomResizedCrop(trunk.size)
        if self.spec.method.augment == "warp-crop":
            return Warp(trunk.short_side)
        return CentreSquare(trunk.short_side, trunk.short_side)

    @property
    def heldout_transform(self) -> Transform:
        """The whole view, cropped at its centre on the device."""
        trunk = self.spec.trunk
        if self.spec.method.augment == "warp-crop":
            return Warp(trunk.short_side)
        return CentreSquare(trunk.short_side, trunk.size)

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Cross-entropy of the labels."""
        size = self.spec.trunk.size
        pictures = batch.pictures
        if self.training:
            pictures = mirror_some(random_crop(pictures, draws, size), draws)
        else:
            pictures = centre_crop(pictures, size)
        labels: Tensor = self.labels if self.training else self.heldout_labels  # type: ignore[assignment]
        target = labels[batch.ids]
        logits = self.head(self.trunk(normalise(pictures, self.rule))[self.trunk.layers[-1]])
        return {"loss": F.cross_entropy(logits, target), "accuracy": accuracy(logits, target)}
