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
from ssltransfer.tasks.distillation.base import Given
from ssltransfer.tasks.distillation.distilled import Distilled, of_all_ranks


class CompressTask(Distilled):
    """Similarities to a queue of past features, as probabilities; the student's must become the teacher's.

    Released nn/compress_loss.py and train_student.py (protocols 3.3). With one queue the student has a linear layer
    into the teacher's space and is compared with the teacher's past features. With two, it is compared with what a
    slow copy of itself said of the same images; that copy is in evaluation mode but for its batch norms.

    A image is compared before it enters a queue, and a batch enters once its update is made, in the order of the
    whole batch: neither micro-batches nor devices change a queue.

    `chance_loss` is the logarithm of the queue's length, which the loss of uniform probabilities never exceeds; that loss
    stands in the curve as `uniform`.
    """

    def __init__(self, given: Given):
        super().__init__(given)
        assert isinstance(self.method, Compress)
        self.temperature, length = self.method.temperature, self.method.queue
        self.head: nn.Module = nn.Identity()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(given.spec.seed + 1)
            width = self.taught if isinstance(self.method, Compress1q) else getattr(self.method, "project", None)
            if width:
                self.head = nn.Linear(self.dims, width)
            self.register_buffer("teacher_queue", _queue(length, self.taught))
            self.slow: nn.ModuleDict | None = None
            if isinstance(self.method, Compress2q):
                self.slow = nn.ModuleDict({"backbone": copy.deepcopy(self.backbone), "head": copy.deepcopy(self.head)})
                self.slow.requires_grad_(False)
                self.register_buffer("student_queue", _queue(length, width or self.dims))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.chance_loss = math.log(length)
        self._seen: list[tuple[Tensor, ...]] = []

    def train(self, mode: bool = True) -> CompressTask:
        """The slow copy's batch norms alone know of training."""
        super().train(mode)
        if self.slow is not None:
            self.slow.eval()
            for module in self.slow.modules():
                if isinstance(module, _BatchNorm):
                    module.train(mode)
        return self

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Divergence of the student's probabilities from the teacher's, a mean over the batch."""
        views = self.views(batch, rng)
        teacher = F.normalize(self.teach(batch, views), dim=1)
        student = F.normalize(self.head(self.embed(views)).float(), dim=1)
        queue: Tensor = self.teacher_queue  # type: ignore[assignment]
        theirs: Tensor = queue if self.slow is None else self.student_queue  # type: ignore[assignment]
        if self.training:
            self._seen.append((teacher,) if self.slow is None else (teacher, self._slowly(views)))
        # Out of autocast: at a temperature of 0.04 the roundings of bfloat16 are a tenth of a logit.
        with torch.autocast(views.device.type, enabled=False):
            loss, uniform = divergence(student @ theirs.T, teacher @ queue.T, self.temperature)
        return {"loss": loss, "uniform": uniform}

    @torch.no_grad()
    def _slowly(self, views: Tensor) -> Tensor:
        assert self.slow is not None
        found = self.slow["backbone"](normalize(views, self.rule), [self.layer])[self.layer]
        found = found.mean((2, 3)) if found.ndim == 4 else found
        return F.normalize(self.slow["head"](found).float(), dim=1)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Let the batch into the queues, then the slow copy follow the student."""
        new = [of_all_ranks(torch.cat(parts)) for parts in zip(*self._seen, strict=True)]
        self._seen = []
        place: Tensor = self.place  # type: ignore[assignment]
        for name, rows in zip(("teacher_queue", "student_queue"), new, strict=False):
            queue: Tensor = getattr(self, name)
            rows = rows[-len(queue) :]
            queue.index_copy_(0, (place + torch.arange(len(rows), device=queue.device)) % len(queue), rows)
        place.copy_((place + len(rows)) % len(queue))
        if self.slow is not None:
            assert isinstance(self.method, Compress2q)
            momentum = self.method.momentum
            for name, module in (("backbone", self.backbone), ("head", self.head)):
                for slow, fast in zip(self.slow[name].parameters(), module.parameters(), strict=True):
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


def build(given: Given) -> CompressTask:
    """The task with fresh weights and queues."""
    return CompressTask(given)
