"""What all pretext tasks give: a trunk, and the rule by which its pictures are normalised afterwards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ssltransfer.data.batches import Batch
from ssltransfer.data.draws import Draws
from ssltransfer.models.normalise import Normalise
from ssltransfer.models.trunk import Trunk
from ssltransfer.training.members import Member, TrainingError
from ssltransfer.training.task import TrunkTask


class PretextTask(TrunkTask):
    """A task that needs no labels, and shows what it asks."""

    @abstractmethod
    def show(self, batch: Batch, draws: Draws) -> list[tuple[str, Tensor]]:
        """Inputs and targets as a person can see them, made as `forward` makes them; no network is run.

        Returns:
            Columns of a table that has a row for each picture of the batch: a caption, and (B, 3, h, w) RGB, uint8 or
            float on the scale 0 to 255. The first column is the picture.
        """


@dataclass(frozen=True)
class Trainable:
    """What a pretext trains: a task, or several.

    Attributes:
        trunk: what all members train, and what is exported.
        rule: how pictures are normalised when the trunk is used afterwards.
        content: what the manifest says of it beyond the weights, once it is trained.
    """

    members: Sequence[Member]
    trunk: Trunk
    rule: Normalise
    content: Callable[[], dict[str, Any]] = dict

    @property
    def guess(self) -> float:
        """Loss of a guess; of several the mean over the steps. Some know it once they have seen their pictures."""
        return sum(one.task.guess * one.share for one in self.members) / sum(one.share for one in self.members)


@dataclass(frozen=True)
class Made:
    """A model that was not trained by gradient.

    Attributes:
        content: what the manifest says of it beyond the weights.
    """

    trunk: Trunk
    rule: Normalise
    content: dict[str, Any] = field(default_factory=dict)


def partners(n: int, task: str) -> Tensor:
    """The places of each picture's other picture in a batch: 1, 0, 3, 2, ...; a picture alone (held out) is its own.

    A random other picture, since the order is random, and the same one however a batch is divided over micro-batches
    and devices.

    Raises:
        TrainingError: n is odd.
    """
    if n % 2 and n > 1:
        raise TrainingError(f"{task} takes pictures in pairs; make batch and micro_batch even (one has {n}).")
    return torch.arange(n) ^ (n > 1)
