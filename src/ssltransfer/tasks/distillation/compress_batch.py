"""CompRess without queue, softmax and temperature (an ablation of Abbasi Koohpayegani et al. 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.config.methods import CompressBatch
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.tasks.distillation.distilled import DistillationTask
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs


@STUDENT_METHODS.register(CompressBatch)
class CompressBatchTask(DistillationTask):
    """Squared difference of the student's and the teacher's cosine similarities between the images of a batch.

    The chance-level loss is that of a constant similarity: the variance of the teacher's similarities over pairs of a
    few hundred images.
    """

    def __init__(self, inputs: StudentInputs):
        super().__init__(inputs)
        cosines = similarity_matrix(self.sampled_teacher_features(inputs.index))
        self.chance_loss = pair_error(cosines, mean_of_pairs(cosines).expand_as(cosines)).item()

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Squared difference, averaged over the pairs of images of the (micro-)batch."""
        views = self.views(batch, rng)
        teacher, student = self.teacher_features(batch, views), self.student_features(views).float()
        with torch.autocast(views.device.type, enabled=False):
            return {"loss": pair_error(similarity_matrix(student), similarity_matrix(teacher))}


def similarity_matrix(features: Tensor) -> Tensor:
    """Cosines float (B, B) of the rows of (B, d)."""
    features = F.normalize(features, dim=1)
    return features @ features.T


def pair_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of similarities (B, B), averaged over the pairs of different images; 0 for a single image."""
    return mean_of_pairs((student - teacher).square())


def mean_of_pairs(values: Tensor) -> Tensor:
    """Mean of (B, B) without the diagonal, a scalar; 0 if B is 1."""
    b = len(values)
    return (values.sum() - values.diagonal().sum()) / max(1, b * (b - 1))
