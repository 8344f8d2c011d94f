"""Regression of the teacher's features (the baselines Reg and Reg-BN of CompRess)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.methods import Regression
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.tasks.distillation.distilled import DistillationTask
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs


@STUDENT_METHODS.register(Regression)
class RegressionTask(DistillationTask):
    """Mean squared error between the student's features, mapped linearly into the teacher's space, and the teacher's.

    Reg-BN standardizes both sides by the (micro-)batch without parameters before it compares them (protocols 3.4).

    By default the error is divided by the variance of the teacher's features over a few hundred images. Otherwise
    pooled features, whose variance is small, give gradients with which the usual rates do not leave the chance level.

    The chance-level loss is that of the teacher's mean: this variance, or 1 if the error is divided by it. For
    Reg-BN it is that of a student that is independent of the teacher: 2. The curve has the fraction of the variance
    that is `explained`.
    """

    def __init__(self, inputs: StudentInputs):
        super().__init__(inputs)
        assert isinstance(self.method, Regression)
        self.bn = self.method.bn
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(inputs.spec.seed + 1)
            self.head = nn.Linear(self.student_dim, self.teacher_dim)
        variance = 2.0 if self.bn else self.feature_variance(inputs.index)
        self.scale = variance if self.method.divide_by_variance and not self.bn else 1.0
        self.chance_loss = variance / self.scale

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Squared error, averaged over batch and dimensions."""
        views = self.views(batch, rng)
        teacher, student = self.teacher_features(batch, views), self.head(self.student_features(views)).float()
        if self.bn:
            teacher, student = standardized(teacher), standardized(student)
        loss = F.mse_loss(student, teacher)
        variance = teacher.var(0, correction=0).mean().clamp(min=torch.finfo(torch.float32).tiny)
        return {"loss": loss / self.scale, "explained": 1 - loss.detach() / variance}


def standardized(x: Tensor) -> Tensor:
    """(B, d) -> (B, d) with zero mean and unit variance of each dimension over the batch (as in batch norm)."""
    return F.batch_norm(x, None, None, training=True)
