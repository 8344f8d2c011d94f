"""Two small tasks on one backbone, for the tests of multi-task training and their processes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.index import Index
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.training.multi_task import TaskRun
from ssltransfer.training.task import Task

RMSPROP = {"steps": 12, "optimizer": "rmsprop", "lr": 0.002, "weight_decay": 4e-5}


class Common(nn.Module):
    """What the tasks share: a layer, a norm, and a layer that none of them uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(48, 12)
        self.norm = nn.BatchNorm1d(12)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(self.linear(x)).tanh()
        return found


class Modulo(Task):
    """The sample's number modulo k, with random numbers of each image and a norm in the head."""

    def __init__(self, common: Common, k: int, seen: list[tuple[int, list[int]]], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.k, self.seen, self.chance_loss = k, seen, math.log(k)
        self.common = common
        torch.manual_seed(k)
        self.head = nn.Sequential(nn.BatchNorm1d(12), nn.Dropout(dropout), nn.Linear(12, k))

    @property
    def transform(self) -> ResizeCenterCrop:
        return ResizeCenterCrop(4, 4)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        if self.training:
            self.seen.append((self.k, batch.ids.tolist()))
        x = batch.images.float().flatten(1) / 255 + 0.1 * rng.normal("noise", 1)
        logits = self.head(self.common(x))
        return {"loss": F.cross_entropy(logits, batch.ids % self.k)}


def pair(
    index: Index,
    val: Index | None = None,
    *,
    shares: tuple[float, float] = (1, 1),
    dropout: float = 0.0,
    **kw: object,
) -> list[TaskRun]:
    """Modulo 3 and modulo 5, which has batches of its own, on one backbone."""
    common, seen = Common(), list[tuple[int, list[int]]]()
    first = Schedule.model_validate({**RMSPROP, "batch_size": 8, **kw})
    second = first.model_copy(update={"batch_size": 16, "lr": 0.001, "lr_schedule": "cosine"})
    return [
        TaskRun(Modulo(common, 3, seen, dropout=dropout), index, first, 5, val, "three", shares[0]),
        TaskRun(Modulo(common, 5, seen, dropout=dropout), index, second, 6, None, "five", shares[1]),
    ]
