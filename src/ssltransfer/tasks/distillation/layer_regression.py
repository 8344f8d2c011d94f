"""Regression of a teacher's maps: the first distillation baseline of Noroozi et al. 2018; hints of FitNets."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.index import Index
from ssltransfer.config.methods import LayerRegression
from ssltransfer.data.device_ops import center_crop
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.data.rng import SampleRNG
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.distillation.distilled import DistillationTask, spaced_ids
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs


@STUDENT_METHODS.register(LayerRegression)
class LayerRegressionTask(DistillationTask):
    """Mean squared error between maps of the student and of the teacher, summed over layers with equal weights.

    Noroozi et al. 2018, section 5 (6 i): conv4 and conv5 of two AlexNets (protocols 3.2). If the numbers of channels
    differ, a 1x1 convolution maps the student's to the teacher's (Romero et al. 2015). If the sizes differ, the larger
    map is average-pooled to the smaller size.

    The chance-level loss is that of the teacher's mean of each channel: the variance over a few hundred images.
    """

    def __init__(self, inputs: StudentInputs):
        super().__init__(inputs)
        assert isinstance(self.method, LayerRegression) and self._online is not None
        self.teacher = self._online
        self.layers = list(self.method.layers)
        self.teacher_layers = list(self.method.teacher_layers or self.method.layers)
        student, teacher = self.backbone.shapes(), self.teacher.model.backbone.shapes()
        self.heads = nn.ModuleList()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(inputs.spec.seed + 1)
            for layer, teacher_layer in zip(self.layers, self.teacher_layers, strict=True):
                channels, target = student[layer][0], teacher[teacher_layer][0]
                self.heads.append(nn.Identity() if channels == target else nn.Conv2d(channels, target, 1))
        self.chance_loss = self._map_variance(inputs.index)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Squared errors: a mean over batch, channels and locations for each layer, and their sum."""
        views = self.views(batch, rng)
        teacher = self.teacher.maps(views, self.teacher_layers)
        student = self.backbone(normalize(views, self.normalization), self.layers)
        losses = {}
        for layer, teacher_layer, head in zip(self.layers, self.teacher_layers, self.heads, strict=True):
            pair = match_spatial_size(_map(head(_map(student[layer]))), _map(teacher[teacher_layer]))
            losses[f"{layer}_loss"] = F.mse_loss(pair[0].float(), pair[1].float())
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def _map_variance(self, index: Index) -> float:
        total, count = torch.zeros(()), 0
        for batch in load_batches(index, self.val_transform, sequential_keys(spaced_ids(index), 64), seed=0):
            maps = self.teacher.maps(center_crop(batch.images, self.spec.backbone.img_size), self.teacher_layers)
            for value in map(_map, maps.values()):
                total += value.float().var((0, 2, 3), correction=0).mean() * len(batch)
            count += len(batch)
        return float(total / count)


def match_spatial_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (B, C, H, W), both average-pooled to the smaller height and width."""
    height, width = (min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return F.adaptive_avg_pool2d(student, (height, width)), F.adaptive_avg_pool2d(teacher, (height, width))


def _map(x: Tensor) -> Tensor:
    """(B, C) -> (B, C, 1, 1); maps unchanged."""
    return x if x.ndim == 4 else x[:, :, None, None]
