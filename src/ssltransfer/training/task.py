"""The interface of a trainable task: pretexts, students, baselines and fine-tuned evaluations."""

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
    """A network with its head, its data transform and its loss.

    `transform` is the CPU part: it turns a decoded image into a uint8 square of fixed size, or several (`Views`).
    `forward` is the device part: it turns a batch of those into inputs, targets and a loss. All of it is batched tensor
    code. Random numbers come from the batch (and for dropout from torch's generator, which `fit` seeds by the step).
    Tensors that must survive a restart (queues, moving averages, counters) are parameters or buffers. In evaluation
    mode the loss is the validation loss.

    With several processes each gets a part of every batch. `fit` averages gradients and batch norm statistics. A task
    keeps its other buffers equal in all processes (a queue gathers the features of all).

    Attributes:
        chance_loss: chance-level loss, such as ln K.
    """

    chance_loss: float

    @property
    @abstractmethod
    def transform(self) -> Transform:
        """CPU part for training."""

    @property
    def val_transform(self) -> Transform:
        """CPU part for validation images (default: as for training)."""
        return self.transform

    @abstractmethod
    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Scalars of a batch, each a mean over it: `loss`, and further values for the curve, such as `accuracy`."""

    def on_train_start(self, index: Index, devices: Devices) -> None:
        """Compute statistics of the training images. `fit` calls this once, before the first step.

        The task is on its device. Results belong in buffers, since a resumed training does not call this again. Every
        process calls it and must compute identical values, if need be by `devices.all_gather`.
        """

    def after_step(self, step: int) -> None:
        """Called after every optimizer step, such as for a momentum encoder."""


class BackboneTask(Task):
    """A task with a backbone to export, and the normalization of images when it is used afterwards."""

    backbone: Backbone
    normalization: Normalize


class TaskWrapper(Task):
    """A task that changes the loss of another task and delegates everything else."""

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
    """Fraction of correct predictions, a scalar, of logits, float (B, C, ...), for a target, int64 (B, ...)."""
    return (logits.argmax(1) == target).float().mean()
