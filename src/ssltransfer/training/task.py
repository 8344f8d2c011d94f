"""What is trained: one protocol for pretexts, students, controls and fine-tuned evaluations."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ssltransfer.artifacts.index import Index
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import Transform
from ssltransfer.errors import UserError
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.normalize import Normalize
from ssltransfer.training.devices import Devices


class TrainingError(UserError):
    """Training cannot continue. The message states the problem and the fix."""


class Task(nn.Module, ABC):
    """A network with its head, its data and its loss.

    `transform` is the CPU part: a decoded image becomes a fixed-size uint8 square, or several (`Views`). `forward` is
    the device part: a batch of those becomes inputs, targets and a loss; all of it batched tensor code, with random
    numbers from `rng` alone (and from torch's generator, which `fit` seeds by the step, for dropout). Tensors that
    must survive a restart (queues, averages, counters) are parameters or buffers. In evaluation mode the loss is the
    validation one.

    Where several processes train together, each sees its share of a batch. `fit` makes gradients and the statistics of
    batch norms equal in all; a task keeps its other buffers so (a queue gathers what all have seen).

    Attributes:
        chance_loss: chance-level loss, such as ln K.
    """

    chance_loss: float

    @property
    @abstractmethod
    def transform(self) -> Transform:
        """CPU part while training."""

    @property
    def val_transform(self) -> Transform:
        """CPU part on validation images; the same unless the training one cuts at random."""
        return self.transform

    @abstractmethod
    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Scalars of a batch, each a mean over it: `loss`, and what else the curve shows, such as `accuracy`."""

    def on_train_start(self, index: Index, devices: Devices) -> None:
        """What the task must know of all training images; called once, before a training's first step.

        The task is on its device. What is found belongs in buffers: the checkpoint holds them, and a training that
        goes on from one is not surveyed again. Every process calls this and must come to the same.

        Args:
            index: the training images.
            devices: where; `gathered` gives what all processes have found.
        """

    def after_step(self, step: int) -> None:
        """Called after every update; momentum copies and the like."""


class BackboneTask(Task):
    """A task with a backbone that is worth keeping.

    Attributes:
        backbone: what is exported.
        normalization: how images are normalized when the backbone is used afterwards.
    """

    backbone: Backbone
    normalization: Normalize


class TaskWrapper(Task):
    """A task that adds to another's loss, and is as that one in all else.

    Attributes:
        task: the other.
    """

    task: Task

    @property
    def chance_loss(self) -> float:  # type: ignore[override]
        """The task's."""
        return self.task.chance_loss

    @property
    def transform(self) -> Transform:
        """The task's."""
        return self.task.transform

    @property
    def val_transform(self) -> Transform:
        """The task's."""
        return self.task.val_transform

    def on_train_start(self, index: Index, devices: Devices) -> None:
        """The task's."""
        self.task.on_train_start(index, devices)

    def after_step(self, step: int) -> None:
        """The task's."""
        self.task.after_step(step)


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Share of right answers, a scalar."""
    return (logits.argmax(1) == target).float().mean()
