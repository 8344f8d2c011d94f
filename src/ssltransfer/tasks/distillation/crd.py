"""CRD without labels: contrastive representation distillation (Tian et al. 2020; a baseline of CompRess)."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.methods import Crd
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.tasks.distillation.distilled import DistillationTask, concat_all_gather
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs

EPSILON = 1e-7


@STUDENT_METHODS.register(Crd)
class CrdTask(DistillationTask):
    """Each side, in a small common space, tells what the other said of this image from what it said of others.

    Released RepDistiller crd/{criterion,memory}.py without the supervised term (protocols 3.4): linear embeddings of
    both sides, of unit length; a memory of what each side said of every image; noise-contrastive estimation whose
    constant is estimated by the first batch. Memories follow after the update, so that micro-batches and devices do not
    change them. Validation images have no place in the memories: their positive is what the other side says now.

    Its memories are a part of the checkpoint: 2 x images x dims floats.
    """

    def __init__(self, given: StudentInputs):
        super().__init__(given)
        assert isinstance(self.method, Crd)
        self.options, n, dims = self.method, len(given.index), self.method.embed_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(given.spec.seed + 1)
            self.student_head, self.teacher_head = nn.Linear(self.student_dim, dims), nn.Linear(self.teacher_dim, dims)
            bound = math.sqrt(3 / dims)
            for name in ("student_memory", "teacher_memory"):
                self.register_buffer(name, torch.empty(n, dims).uniform_(-bound, bound))
        # Constants of the two sides (student, teacher); 0: not estimated yet.
        self.register_buffer("constants", torch.zeros(2))
        negatives = self.options.num_negatives
        self.chance_loss = 2 * (math.log1p(negatives) + negatives * math.log1p(1 / negatives))
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """The noise-contrastive losses of both sides, a mean over the batch."""
        views = self.views(batch, rng)
        teacher = F.normalize(self.teacher_head(self.teacher_features(batch, views)).float(), dim=1)
        student = F.normalize(self.student_head(self.student_features(views)).float(), dim=1)
        memories: tuple[Tensor, Tensor] = (self.teacher_memory, self.student_memory)  # type: ignore[assignment]
        n = len(memories[0])
        others = rng.integers("negatives", self.options.num_negatives, n)
        with torch.autocast(views.device.type, enabled=False):
            scores = []
            for mine, memory, now in ((student, memories[0], teacher), (teacher, memories[1], student)):
                own = memory[batch.ids] if self.training else now.detach()
                rows = torch.cat([own[:, None], memory[others]], dim=1)
                scores.append(torch.exp(torch.einsum("bd,bkd->bk", mine, rows) / self.options.temperature))
            constants = self._estimated(scores, n)
            loss = sum(
                (contrast(score / constant, n) for score, constant in zip(scores, constants, strict=True)),
                start=torch.zeros((), device=views.device),
            )
        if self.training:
            self._pending.append((batch.ids, student.detach(), teacher.detach()))
        return {"loss": loss}

    @torch.no_grad()
    def _estimated(self, scores: list[Tensor], n: int) -> Tensor:
        """Constants that make a score a probability among n; those of the first batch stay."""
        constants: Tensor = self.constants  # type: ignore[assignment]
        if not self.training or constants[0] > 0:
            return torch.where(constants > 0, constants, torch.stack([score.mean() for score in scores]) * n)
        found = torch.stack([score.mean() for score in scores]) * n
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found)
            found /= dist.get_world_size()
        constants.copy_(found)
        return constants

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Let the memories follow what was said."""
        ids, student, teacher = (concat_all_gather(torch.cat(parts)) for parts in zip(*self._pending, strict=True))
        self._pending = []
        momentum = self.options.momentum
        for memory, new in ((self.student_memory, student), (self.teacher_memory, teacher)):
            assert isinstance(memory, Tensor)
            memory[ids] = F.normalize(momentum * memory[ids] + (1 - momentum) * new, dim=1)


def contrast(probabilities: Tensor, n: int) -> Tensor:
    """-log D(positive) - sum log(1 - D(negative)) with D(p) = p / (p + m / n), a mean over the batch.

    Args:
        probabilities: (B, 1 + m), the positive first.
        n: images among which negatives are drawn.
    """
    noise = (probabilities.shape[1] - 1) / n
    positive = torch.log(probabilities[:, 0] / (probabilities[:, 0] + noise + EPSILON))
    negative = torch.log(noise / (probabilities[:, 1:] + noise + EPSILON)).sum(1)
    return -(positive + negative).mean()
