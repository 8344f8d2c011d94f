"""Regression of the teacher's features (the baselines Reg and Reg-BN of CompRess)."""

from __future__ import annotations

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
    """Mean squared error between the student's vector, mapped linearly into the teacher's space, and the teacher's.

    Reg-BN standardizes both sides by the batch (of a micro-batch and device) without parameters before they are
    compared (protocols 3.4), so that no affine change of a dimension of either side matters.

    Chance is the teacher's mean, which misses by the variance of its features: that of a few hundred images. For
    Reg-BN it is a student that has nothing to do with the teacher: 2. The curve has the share of the variance that is
    `explained`.
    """

    def __init__(self, given: StudentInputs):
        super().__init__(given)
        assert isinstance(self.method, Regression)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(given.spec.seed + 1)
            self.head = nn.Linear(self.student_dim, self.teacher_dim)
        self.chance_loss = 2.0 if self.method.bn else self.feature_variance(given.index)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Squared error, a mean over batch and dimensions."""
        assert isinstance(self.method, Regression)
        views = self.views(batch, rng)
        teacher, student = self.teacher_features(batch, views), self.head(self.student_features(views)).float()
        if self.method.bn:
            teacher, student = standardized(teacher), standardized(student)
        loss = F.mse_loss(student, teacher)
        spread = teacher.var(0, correction=0).mean()
        return {"loss": loss, "explained": 1 - loss.detach() / spread.clamp(min=torch.finfo(torch.float32).tiny)}


def standardized(x: Tensor) -> Tensor:
    """(B, d): zero mean and unit deviation of each dimension over the batch, as batch normalization has it."""
    return F.batch_norm(x, None, None, training=True)
