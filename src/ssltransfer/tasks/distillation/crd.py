"""CRD without labels: contrastive representation distillation (Tian et al. 2020; a baseline of CompRess)."""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.methods import Crd
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transfer import to_device
from ssltransfer.tasks.distillation.distilled import DistillationTask, concat_all_gather
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs

EPSILON = 1e-7


@STUDENT_METHODS.register(Crd)
class CrdTask(DistillationTask):
    """Noise-contrastive estimation in both directions: each side's embedding against a memory bank of the other's.

    Released RepDistiller crd/{criterion,memory}.py without the supervised term (protocols 3.4). Each side has a linear,
    L2-normalized embedding, a memory bank with an embedding of every training image, and a normalization constant,
    which the first batch estimates. The memory banks are updated after the step, so that micro-batches and devices do
    not change them. Validation images are not in the memory banks: their positive is the other side's current
    embedding.

    The checkpoint contains the memory banks: 2 x images x embed_dim floats.
    """

    def __init__(self, inputs: StudentInputs):
        super().__init__(inputs)
        assert isinstance(self.method, Crd)
        self.options, n, dim = self.method, len(inputs.index), self.method.embed_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(inputs.spec.seed + 1)
            self.student_head, self.teacher_head = nn.Linear(self.student_dim, dim), nn.Linear(self.teacher_dim, dim)
            bound = math.sqrt(3 / dim)
            for name in ("student_memory", "teacher_memory"):
                self.register_buffer(name, torch.empty(n, dim).uniform_(-bound, bound))
        self.register_buffer("constants", torch.zeros(2))  # student, teacher; 0: not estimated yet
        self.num_negatives = negatives = self.options.num_others(n)
        self.chance_loss = 2 * (math.log1p(negatives) + negatives * math.log1p(1 / negatives))
        self._estimated = False
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []  # of the micro-batches of this step

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Sum of the contrastive losses of both sides, averaged over the batch."""
        views = self.views(batch, rng)
        teacher = F.normalize(self.teacher_head(self.teacher_features(batch, views)).float(), dim=1)
        student = F.normalize(self.student_head(self.student_features(views)).float(), dim=1)
        memories: tuple[Tensor, Tensor] = (self.teacher_memory, self.student_memory)  # type: ignore[assignment]
        n = len(memories[0])
        ids = to_device(batch.ids, views.device)
        negatives = self.negatives(ids, rng, n)
        with torch.autocast(views.device.type, enabled=False):
            scores = []
            for anchor, memory, current in ((student, memories[0], teacher), (teacher, memories[1], student)):
                positive = memory[ids] if self.training else current.detach()
                rows = torch.cat([positive[:, None], memory[negatives]], dim=1)
                scores.append(torch.exp(torch.einsum("bd,bkd->bk", anchor, rows) / self.options.temperature))
            constants = self._normalization_constants(scores, n)
            losses = [contrast(score / constant, n) for score, constant in zip(scores, constants, strict=True)]
        if self.training:
            self._pending.append((ids, student.detach(), teacher.detach()))
        return {"loss": torch.stack(losses).sum()}

    def negatives(self, ids: Tensor, rng: SampleRNG, n: int) -> Tensor:
        """Rows of the memory banks, int64 (B, num_negatives), uniform over the n images, or over all others."""
        if not self.training or not self.options.exclude_self:
            return rng.integers("negatives", self.num_negatives, n)
        others = rng.integers("negatives", self.num_negatives, n - 1)
        return others + (others >= ids[:, None])

    @torch.no_grad()
    def _normalization_constants(self, scores: list[Tensor], n: int) -> Tensor:
        """Constants that turn scores into probabilities over n images; those of the first batch are kept."""
        constants: Tensor = self.constants  # type: ignore[assignment]
        estimate = torch.stack([score.mean() for score in scores]) * n
        self._estimated = self._estimated or bool(constants[0] > 0)  # read from the device once
        if not self.training or self._estimated:
            return torch.where(constants > 0, constants, estimate)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(estimate)
            estimate /= dist.get_world_size()
        constants.copy_(estimate)
        self._estimated = True
        return constants

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Update the memory banks with the new embeddings."""
        ids, student, teacher = (concat_all_gather(torch.cat(parts)) for parts in zip(*self._pending, strict=True))
        self._pending = []
        momentum = self.options.momentum
        for memory, new in ((self.student_memory, student), (self.teacher_memory, teacher)):
            assert isinstance(memory, Tensor)
            memory[ids] = F.normalize(momentum * memory[ids] + (1 - momentum) * new, dim=1)


def contrast(probabilities: Tensor, n: int) -> Tensor:
    """-log D(positive) - sum log(1 - D(negative)) with D(p) = p / (p + m / n), averaged over the batch.

    Args:
        probabilities: (B, 1 + m), the positive first, then m negatives.
        n: number of images that negatives are drawn from.
    """
    noise = (probabilities.shape[1] - 1) / n
    positive = torch.log(probabilities[:, 0] / (probabilities[:, 0] + noise + EPSILON))
    negative = torch.log(noise / (probabilities[:, 1:] + noise + EPSILON)).sum(1)
    return -(positive + negative).mean()
