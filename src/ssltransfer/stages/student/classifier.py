"""A classifier from scratch: what cluster classification and the supervised control share."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.entities import Student
from ssltransfer.data.batches import Batch
from ssltransfer.data.draws import Draws
from ssltransfer.models.normalise import normalise
from ssltransfer.models.trunk import initialise_last
from ssltransfer.stages.student.base import StudentTask
from ssltransfer.training.task import accuracy


class Classifier(StudentTask):
    """A trunk with a fresh k-way layer, trained by cross-entropy on one label a picture.

    The standard supervised CaffeNet recipe (bvlc_reference_caffenet; Noroozi et al. 2018: pseudo-labels are learned
    with it): 256 x 256 warp, random 227 crop, mirror. The head stays behind when the trunk is written.

    Args:
        spec: trunk, augmentation and seed.
        labels: int (N,), one label for each picture of the training index.
        heldout: int (M,), the same for held-out pictures, or None.
        classes: k.
    """

    def __init__(self, spec: Student, labels: np.ndarray, heldout: np.ndarray | None, classes: int):
        super().__init__(spec)
        dropout = spec.method.dropout
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

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Cross-entropy of the labels."""
        pictures = self.views(batch, draws)
        labels: Tensor = self.labels if self.training else self.heldout_labels  # type: ignore[assignment]
        target = labels[batch.ids]
        logits = self.head(self.trunk(normalise(pictures, self.rule))[self.trunk.layers[-1]])
        return {"loss": F.cross_entropy(logits, target), "accuracy": accuracy(logits, target)}
