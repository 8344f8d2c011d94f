"""Supervised baseline, and the classifier that it shares with cluster classification."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.entities import Student
from ssltransfer.config.methods import Supervised
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.models.backbone import initialize_last
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs, StudentTask
from ssltransfer.training.task import accuracy


class Classifier(StudentTask):
    """A backbone with a fresh k-way layer, trained by cross-entropy on one label per image.

    The standard supervised CaffeNet recipe (bvlc_reference_caffenet; Noroozi et al. 2018: pseudo-labels are learned
    with it): 256 x 256 warp, random 227 crop, flip. The head is not exported.

    Args:
        spec: backbone, augmentation and seed.
        labels: int (N,), one label for each image of the training index.
        val: int (M,), the same for validation images, or None.
        classes: k.
    """

    def __init__(self, spec: Student, labels: np.ndarray, val: np.ndarray | None, classes: int):
        super().__init__(spec)
        dropout = spec.method.dropout
        last = self.backbone.layers[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed + 1)
            # Caffe's and VGG's networks have dropout before their last layer; torchvision's others have not.
            before = nn.Dropout(dropout) if spec.backbone.dropout_before_classifier else nn.Identity()
            last_layer = nn.Linear(self.backbone.shapes()[last][0], classes)
            initialize_last(last_layer)
            self.head = nn.Sequential(before, last_layer)
        # Not in the checkpoint: they come from the labels' file.
        self.register_buffer("labels", torch.from_numpy(labels.astype(np.int64)), persistent=False)
        held = labels[:0] if val is None else val
        self.register_buffer("val_labels", torch.from_numpy(held.astype(np.int64)), persistent=False)
        self.chance_loss = math.log(classes)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy of the labels."""
        images = self.views(batch, rng)
        labels: Tensor = self.labels if self.training else self.val_labels  # type: ignore[assignment]
        target = labels[batch.ids]
        logits = self.head(self.backbone(normalize(images, self.normalization))[self.backbone.layers[-1]])
        return {"loss": F.cross_entropy(logits, target), "accuracy": accuracy(logits, target)}


@STUDENT_METHODS.register(Supervised)
def supervised(given: StudentInputs) -> Classifier:
    """The classifier of the true labels.

    Raises:
        ArtifactError: there are fewer than two classes.
    """
    index, val = given.index, given.val
    if len(np.unique(index.labels)) < 2:
        raise ArtifactError(f"{given.spec.data}: all images have the same class; name another dataset.")
    return Classifier(given.spec, index.labels, None if val is None else val.labels, len(index.classes))
