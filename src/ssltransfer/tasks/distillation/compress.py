"""CompRess (Abbasi Koohpayegani et al. 2020): the student learns the teacher's similarities between images."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssltransfer.artifacts.index import Index
from ssltransfer.config.methods import Compress1q, Compress2q
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transfer import to_device
from ssltransfer.models.backbone import Backbone
from ssltransfer.tasks.distillation.distilled import DistillationTask, concat_all_gather
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs
from ssltransfer.training.devices import Devices

EXCLUDED = -1e6  # a logit whose probability is 0


@STUDENT_METHODS.register(Compress1q, Compress2q)
class CompressTask(DistillationTask):
    """KL divergence of similarity distributions over a queue of past features: the student's from the teacher's.

    Released nn/compress_loss.py and train_student.py (protocols 3.3). CompRess-1q maps the student's features linearly
    into the teacher's space and compares them with the teacher queue. CompRess-2q compares them with a student queue,
    which holds the features of a momentum encoder. The momentum encoder is in evaluation mode, except for its batch
    norms.

    A batch enters the queues after its update, in the order of the whole batch. Hence neither micro-batches nor devices
    change a queue. `queue_ids` has the index of the image of each feature (-1: initial content), so that an image is
    not compared with past features of itself (`exclude_self`).

    With `student_temperature` and `include_self` CompRess-1q is SEED (Fang et al. 2021): the teacher's feature of the
    same view precedes its queue.

    `chance_loss` is the logarithm of the number of compared features. The loss of uniform probabilities never exceeds
    it; the curve has that loss as `uniform`.
    """

    def __init__(self, inputs: StudentInputs):
        super().__init__(inputs)
        assert isinstance(self.method, Compress1q | Compress2q)
        size = self.method.num_others(len(inputs.index))
        self.temperatures = self.method.student_temperature or self.method.temperature, self.method.temperature
        self.include_self = isinstance(self.method, Compress1q) and self.method.include_self
        self.head: nn.Module = nn.Identity()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(inputs.spec.seed + 1)
            width = self.teacher_dim if isinstance(self.method, Compress1q) else self.method.projection_dim
            if width:
                self.head = nn.Linear(self.student_dim, width)
            self.register_buffer("teacher_queue", _queue(size, self.teacher_dim))
            self.momentum_encoder: nn.ModuleDict | None = None
            if isinstance(self.method, Compress2q):
                encoder = {"backbone": copy.deepcopy(self.backbone), "head": copy.deepcopy(self.head)}
                self.momentum_encoder = nn.ModuleDict(encoder)
                self.momentum_encoder.requires_grad_(False)
                self.register_buffer("student_queue", _queue(size, width or self.student_dim))
        self.register_buffer("queue_ids", torch.full((size,), -1))
        self.register_buffer("queue_ptr", torch.zeros((), dtype=torch.int64))
        self.chance_loss = math.log(size + self.include_self)
        self._pending: list[tuple[Tensor, ...]] = []  # features of the micro-batches of this step

    def on_train_start(self, index: Index, devices: Devices) -> None:
        """Copy the initial weights of the student into the momentum encoder."""
        super().on_train_start(index, devices)
        if self.momentum_encoder is not None:
            self.momentum_encoder["backbone"].load_state_dict(self.backbone.state_dict())

    def train(self, mode: bool = True) -> CompressTask:
        """Set the mode; the momentum encoder stays in evaluation mode, except for its batch norms."""
        super().train(mode)
        if self.momentum_encoder is not None:
            self.momentum_encoder.eval()
            for module in self.momentum_encoder.modules():
                if isinstance(module, _BatchNorm):
                    module.train(mode)
        return self

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """KL divergence of the student's probabilities from the teacher's, averaged over the batch."""
        views = self.views(batch, rng)
        teacher = F.normalize(self.teacher_features(batch, views), dim=1)
        student = F.normalize(self.head(self.student_features(views)).float(), dim=1)
        teacher_queue: Tensor = self.teacher_queue  # type: ignore[assignment]
        student_queue: Tensor = teacher_queue if self.momentum_encoder is None else self.student_queue  # type: ignore[assignment]
        if self.training:
            keys = () if self.momentum_encoder is None else (self._encode_key(views),)
            self._pending.append((to_device(batch.ids, views.device), teacher, *keys))
        # Without autocast: at a temperature of 0.04 a rounding error of bfloat16 is a tenth of a logit.
        with torch.autocast(views.device.type, enabled=False):
            similarities = student @ student_queue.T, teacher @ teacher_queue.T
            excluded = self._own_copies(batch)
            if self.include_self:
                own = [(features * teacher).sum(1, keepdim=True) for features in (student, teacher)]
                similarities = torch.cat([own[0], similarities[0]], 1), torch.cat([own[1], similarities[1]], 1)
                excluded = None if excluded is None else F.pad(excluded, (1, 0))
            loss, uniform = divergence(*similarities, *self.temperatures, excluded)
        return {"loss": loss, "uniform": uniform}

    def _own_copies(self, batch: Batch) -> Tensor | None:
        """Bool (B, K): the queue's past features of the image itself. Validation images are never in the queue."""
        assert isinstance(self.method, Compress1q | Compress2q)
        if not self.training or not self.method.exclude_self:
            return None
        queue_ids: Tensor = self.queue_ids  # type: ignore[assignment]
        return to_device(batch.ids, queue_ids.device)[:, None] == queue_ids

    @torch.no_grad()
    def _encode_key(self, views: Tensor) -> Tensor:
        assert self.momentum_encoder is not None
        backbone = self.momentum_encoder["backbone"]
        assert isinstance(backbone, Backbone)
        features = self.student_features(views, backbone)
        return F.normalize(self.momentum_encoder["head"](features).float(), dim=1)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Enqueue the batch, then update the momentum encoder."""
        gathered = [concat_all_gather(torch.cat(parts)) for parts in zip(*self._pending, strict=True)]
        self._pending = []
        queue_ptr: Tensor = self.queue_ptr  # type: ignore[assignment]
        for name, rows in zip(("queue_ids", "teacher_queue", "student_queue"), gathered, strict=False):
            queue: Tensor = getattr(self, name)
            rows = rows[-len(queue) :]
            queue.index_copy_(0, (queue_ptr + torch.arange(len(rows), device=queue.device)) % len(queue), rows)
        queue_ptr.copy_((queue_ptr + len(rows)) % len(queue))
        if self.momentum_encoder is not None:
            assert isinstance(self.method, Compress2q)
            keys: list[Tensor] = list(self.momentum_encoder.parameters())
            queries: list[Tensor] = [*self.backbone.parameters(), *self.head.parameters()]
            torch._foreach_lerp_(keys, queries, 1 - self.method.momentum)  # one kernel for all


def divergence(
    student: Tensor,
    teacher: Tensor,
    student_temperature: float,
    teacher_temperature: float,
    excluded: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """KL(teacher || student) of softmax(similarities (B, K) / temperature), averaged over the batch.

    The second value is the loss of a uniform student. Only the student's similarities get a gradient. Similarities of
    `excluded`, bool (B, K), have the probability 0.
    """
    logits = student / student_temperature, teacher.detach() / teacher_temperature
    log_count: Tensor | float = math.log(teacher.shape[1])
    if excluded is not None:
        # A finite value, because the divergence of two infinite ones is not a number.
        logits = logits[0].masked_fill(excluded, EXCLUDED), logits[1].masked_fill(excluded, EXCLUDED)
        log_count = (~excluded).sum(1).log()
    log_prob, target_log_prob = (F.log_softmax(values, dim=1) for values in logits)
    loss = F.kl_div(log_prob, target_log_prob, log_target=True, reduction="batchmean")
    entropy = -(target_log_prob.exp() * target_log_prob).sum(1)
    uniform = (log_count - entropy).mean()
    return loss, uniform


def _queue(size: int, dim: int) -> Tensor:
    """Initial content of a queue: uniform in +-sqrt(3 / dim), rows of length about 1."""
    bound = math.sqrt(3 / dim)
    return torch.empty(size, dim).uniform_(-bound, bound)
