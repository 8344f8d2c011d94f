"""CompRess (Abbasi Koohpayegani et al. 2020): the student learns how alike the teacher finds images."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssltransfer.config.methods import Compress, Compress1q, Compress2q
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.distillation.distilled import DistillationTask, concat_all_gather
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs


@STUDENT_METHODS.register(Compress1q, Compress2q)
class CompressTask(DistillationTask):
    """Similarities to a queue of past features, as probabilities; the student's must become the teacher's.

    Released nn/compress_loss.py and train_student.py (protocols 3.3). With one queue the student has a linear layer
    into the teacher's space and is compared with the teacher's past features. With two, it is compared with what a
    slow copy of itself said of the same images; that copy is in evaluation mode but for its batch norms.

    A image is compared before it enters a queue, and a batch enters once its update is made, in the order of the
    whole batch: neither micro-batches nor devices change a queue.

    `chance_loss` is the logarithm of the queue size. The loss of uniform probabilities never exceeds it; the curve has
    that loss as `uniform`.
    """

    def __init__(self, given: StudentInputs):
        super().__init__(given)
        assert isinstance(self.method, Compress)
        self.temperature, length = self.method.temperature, self.method.queue_size
        self.head: nn.Module = nn.Identity()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(given.spec.seed + 1)
            width = (
                self.teacher_dim
                if isinstance(self.method, Compress1q)
                else getattr(self.method, "projection_dim", None)
            )
            if width:
                self.head = nn.Linear(self.student_dim, width)
            self.register_buffer("teacher_queue", _queue(length, self.teacher_dim))
            self.momentum_encoder: nn.ModuleDict | None = None
            if isinstance(self.method, Compress2q):
                self.momentum_encoder = nn.ModuleDict(
                    {"backbone": copy.deepcopy(self.backbone), "head": copy.deepcopy(self.head)}
                )
                self.momentum_encoder.requires_grad_(False)
                self.register_buffer("student_queue", _queue(length, width or self.student_dim))
        self.register_buffer("queue_ptr", torch.zeros((), dtype=torch.int64))
        self.chance_loss = math.log(length)
        self._pending: list[tuple[Tensor, ...]] = []

    def train(self, mode: bool = True) -> CompressTask:
        """The slow copy's batch norms alone know of training."""
        super().train(mode)
        if self.momentum_encoder is not None:
            self.momentum_encoder.eval()
            for module in self.momentum_encoder.modules():
                if isinstance(module, _BatchNorm):
                    module.train(mode)
        return self

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Divergence of the student's probabilities from the teacher's, a mean over the batch."""
        views = self.views(batch, rng)
        teacher = F.normalize(self.teacher_features(batch, views), dim=1)
        student = F.normalize(self.head(self.student_features(views)).float(), dim=1)
        queue: Tensor = self.teacher_queue  # type: ignore[assignment]
        student_queue: Tensor = queue if self.momentum_encoder is None else self.student_queue  # type: ignore[assignment]
        if self.training:
            self._pending.append((teacher,) if self.momentum_encoder is None else (teacher, self._encode_key(views)))
        # Out of autocast: at a temperature of 0.04 the roundings of bfloat16 are a tenth of a logit.
        with torch.autocast(views.device.type, enabled=False):
            loss, uniform = divergence(student @ student_queue.T, teacher @ queue.T, self.temperature)
        return {"loss": loss, "uniform": uniform}

    @torch.no_grad()
    def _encode_key(self, views: Tensor) -> Tensor:
        assert self.momentum_encoder is not None
        found = self.momentum_encoder["backbone"](normalize(views, self.normalization), [self.layer])[self.layer]
        found = found.mean((2, 3)) if found.ndim == 4 else found
        return F.normalize(self.momentum_encoder["head"](found).float(), dim=1)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Let the batch into the queues, then the slow copy follow the student."""
        new = [concat_all_gather(torch.cat(parts)) for parts in zip(*self._pending, strict=True)]
        self._pending = []
        queue_ptr: Tensor = self.queue_ptr  # type: ignore[assignment]
        for name, rows in zip(("teacher_queue", "student_queue"), new, strict=False):
            queue: Tensor = getattr(self, name)
            rows = rows[-len(queue) :]
            queue.index_copy_(0, (queue_ptr + torch.arange(len(rows), device=queue.device)) % len(queue), rows)
        queue_ptr.copy_((queue_ptr + len(rows)) % len(queue))
        if self.momentum_encoder is not None:
            assert isinstance(self.method, Compress2q)
            momentum = self.method.momentum
            for name, module in (("backbone", self.backbone), ("head", self.head)):
                for slow, fast in zip(self.momentum_encoder[name].parameters(), module.parameters(), strict=True):
                    slow.lerp_(fast, 1 - momentum)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """KL(teacher || student) of the softmaxes of similarities, each a mean over the batch.

    Args:
        student, teacher: similarities (B, K); gradient flows into the student's alone.
        temperature: that both are divided by.

    Returns:
        The loss, and what it would be if all of the student's were equal.
    """
    wanted = F.log_softmax(teacher.detach() / temperature, dim=1)
    found = F.log_softmax(student / temperature, dim=1)
    loss = F.kl_div(found, wanted, log_target=True, reduction="batchmean")
    uniform = math.log(teacher.shape[1]) + (wanted.exp() * wanted).sum(1).mean()
    return loss, uniform


def _queue(length: int, dims: int) -> Tensor:
    """Uniform in +-sqrt(3 / dims), rows of length about 1: what stands in a queue before there are features."""
    bound = math.sqrt(3 / dims)
    return torch.empty(length, dims).uniform_(-bound, bound)
