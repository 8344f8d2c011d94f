"""Losses of the distillation methods as functions of features, for training code of your own.

    loss = ssltransfer.losses.feature_distillation(head(student(x)), teacher(x))
    loss = ssltransfer.losses.compress(student(x), teacher(x), student_queue, teacher_queue)

They are the functions that the methods of the same names minimize (docs/protocols.md, section 3). Each is a mean over
the batch, and no gradient reaches the teacher.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ssltransfer.config.methods.feature_distillation import FeatureLoss
from ssltransfer.tasks.distillation.attention_transfer import distances
from ssltransfer.tasks.distillation.compress import divergence
from ssltransfer.tasks.distillation.compress_batch import pair_error, similarity_matrix
from ssltransfer.tasks.distillation.feature_distillation import feature_loss
from ssltransfer.tasks.distillation.regression import standardized

__all__ = ["attention_transfer", "compress", "compress_batch", "feature_distillation", "regression"]


def compress(
    student: Tensor,
    teacher: Tensor,
    student_queue: Tensor,
    teacher_queue: Tensor,
    *,
    temperature: float = 0.04,
    student_temperature: float | None = None,
) -> Tensor:
    """KL divergence between the similarity distributions of teacher and student over a queue of other images.

    Abbasi Koohpayegani et al. 2020 (CompRess), section 3; protocols 3.3. Features are divided by their lengths here.
    Keep queues of the past features of the teacher and, for CompRess-2q, of a momentum encoder of the student. For
    CompRess-1q give the teacher's queue twice, and map the student's features to its dimensions.

    Args:
        student, teacher: float (B, d) and (B, D), of the same images.
        student_queue, teacher_queue: float (K, d) and (K, D), of other images, in the same order.
        temperature: of both softmaxes.
        student_temperature: of the student's, if it differs (SEED: 0.2, and 0.01 of the teacher's).
    """
    student, teacher, student_queue, teacher_queue = (
        F.normalize(x.float(), dim=1) for x in (student, teacher.detach(), student_queue.detach(), teacher_queue)
    )
    similarities = student @ student_queue.T, teacher @ teacher_queue.T
    return divergence(*similarities, student_temperature or temperature, temperature)[0]


def compress_batch(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosine similarities between all images of a batch.

    Abbasi Koohpayegani et al. 2020, table 1; protocols 3.3.

    Args:
        student, teacher: float (B, d) and (B, D), of the same images; at least two.
    """
    return pair_error(similarity_matrix(student.float()), similarity_matrix(teacher.detach().float()))


def feature_distillation(student: Tensor, teacher: Tensor, loss: FeatureLoss = "cosine") -> Tensor:
    """Distance of features or of maps at each location, after a head that gives the student the teacher's dimensions.

    Navaneet et al. 2021 (SimReg), cosine; Ranzinger et al. 2024 (AM-RADIO), cosine+smooth-l1; protocols 3.5.

    Args:
        student, teacher: float (B, D), or (B, D, H, W).
        loss: cosine (1 - cosine), l2 or smooth-l1 (means over the dimensions), or cosine+smooth-l1 (0.9 and 0.1).
    """
    rows = [x.movedim(1, -1).flatten(0, -2).float() for x in (student, teacher.detach())]
    return feature_loss(loss, *rows)


def regression(student: Tensor, teacher: Tensor, *, bn: bool = False) -> Tensor:
    """Mean squared error of features, with `bn` after the standardization of each dimension over the batch.

    Abbasi Koohpayegani et al. 2020, the baselines Reg and Reg-BN; protocols 3.4.

    Args:
        student, teacher: float (B, D).
    """
    rows = student.float(), teacher.detach().float()
    return F.mse_loss(*(map(standardized, rows) if bn else rows))


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Distance of the normalized attention maps (sums of squares over channels), divided by the number of locations.

    Zagoruyko & Komodakis 2017, as Noroozi et al. 2018, section 5; protocols 3.2. The larger map is average-pooled.

    Args:
        student, teacher: float (B, c, h, w) and (B, C, H, W).
    """
    return distances(student.float(), teacher.detach().float()).mean()
