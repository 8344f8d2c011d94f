"""Regression of a teacher's maps: the first distillation baseline of Noroozi et al. 2018; hints of FitNets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.index import Index
from ssltransfer.config.methods import LayerRegression
from ssltransfer.data.device_ops import center_crop
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.data.rng import SampleRNG
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.distillation.distilled import IMAGES, DistillationTask
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs


@STUDENT_METHODS.register(LayerRegression)
class LayerRegressionTask(DistillationTask):
    """Mean squared error between maps of the student and of the teacher, layer by layer, each with equal weight.

    Noroozi et al. 2018, section 5 (6 i): an AlexNet whose conv4 and conv5 become those of another (protocols 3.2).
    Where channels differ a 1x1 convolution maps the student's to the teacher's (Romero et al. 2015), where sides differ
    the larger map is averaged to the smaller one.

    The chance level is the teacher's mean of each channel: the variance of a few hundred images.
    """

    def __init__(self, given: StudentInputs):
        super().__init__(given)
        assert isinstance(self.method, LayerRegression) and self._online is not None
        self.layers = list(self.method.layers)
        self.teacher_layers = list(self.method.teacher_layers or self.method.layers)
        mine, theirs = self.backbone.shapes(), self._online.model.backbone.shapes()
        self.heads = nn.ModuleList()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(given.spec.seed + 1)
            for layer, other in zip(self.layers, self.teacher_layers, strict=True):
                here, there = mine[layer][0], theirs[other][0]
                self.heads.append(nn.Identity() if here == there else nn.Conv2d(here, there, 1))
        self.chance_loss = self._map_variance(given.index)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Squared errors, a mean over batch, channels and places of each layer, summed over the layers."""
        views = self.views(batch, rng)
        assert self._online is not None
        theirs = self._online.maps(views, self.teacher_layers)
        mine = self.backbone(normalize(views, self.normalization), self.layers)
        losses = {}
        for layer, other, head in zip(self.layers, self.teacher_layers, self.heads, strict=True):
            student, teacher = match_spatial_size(_map(head(_map(mine[layer]))), _map(theirs[other]))
            losses[f"{layer}_loss"] = F.mse_loss(student.float(), teacher.float())
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def _map_variance(self, index: Index) -> float:
        assert self._online is not None
        keys = sequential_keys(list(range(0, len(index), -(-len(index) // IMAGES))), 64)
        total, count = torch.zeros(()), 0
        for batch in load_batches(index, self.val_transform, keys, seed=0):
            maps = self._online.maps(center_crop(batch.images, self.spec.backbone.img_size), self.teacher_layers)
            for value in map(_map, maps.values()):
                total += value.float().var((0, 2, 3), correction=0).mean() * len(batch)
            count += len(batch)
        return float(total / count)


def match_spatial_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (B, C, H, W) at the smaller one's sides: the other is averaged."""
    height, width = (min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return F.adaptive_avg_pool2d(student, (height, width)), F.adaptive_avg_pool2d(teacher, (height, width))


def _map(x: Tensor) -> Tensor:
    """A vector is a map of one place."""
    return x if x.ndim == 4 else x[:, :, None, None]
