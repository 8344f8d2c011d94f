"""Supervised baseline, and the classifier that cluster classification uses too."""

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
    """A backbone with a fresh linear layer, trained by cross-entropy on the labels of the batch.

    The standard supervised CaffeNet recipe (bvlc_reference_caffenet; Noroozi et al. 2018: pseudo-labels are learned
    with it): 256 x 256 warp, random 227 crop, flip. The head is not exported.
    """

    def __init__(self, spec: Student, classes: int):
        super().__init__(spec)
        dropout = spec.method.dropout
        last = self.backbone.layers[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed + 1)
            # Caffe's networks and VGGs have dropout before their last layer; torchvision's others do not.
            before = nn.Dropout(dropout) if spec.backbone.dropout_before_classifier else nn.Identity()
            last_layer = nn.Linear(self.backbone.shapes()[last][0], classes)
            initialize_last(last_layer)
            self.head = nn.Sequential(before, last_layer)
        self.chance_loss = math.log(classes)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy of the labels."""
        images, target = self.views(batch, rng), batch.targets["label"]
        logits = self.head(self.backbone(normalize(images, self.normalization))[self.backbone.layers[-1]])
        return {"loss": F.cross_entropy(logits, target), "accuracy": accuracy(logits, target)}


@STUDENT_METHODS.register(Supervised)
def supervised(inputs: StudentInputs) -> Classifier:
    """The classifier of the true labels.

    Raises:
        ArtifactError: an image has no label, or there are fewer than two classes.
    """
    if (inputs.index.labels < 0).any():
        raise ArtifactError(f"{inputs.spec.data}: not every image has a class label; name a labeled dataset.")
    if len(np.unique(inputs.index.labels)) < 2:
        raise ArtifactError(f"{inputs.spec.data}: all images have the same class; name another dataset.")
    return Classifier(inputs.spec, len(inputs.index.classes))
