"""The base class of pretext tasks, and the registries of tasks and of models that are not trained."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks.base import TaskOptions
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone
from ssltransfer.models.normalize import Normalize
from ssltransfer.registry import Registry
from ssltransfer.training.devices import Devices
from ssltransfer.training.multi_task import TaskRun
from ssltransfer.training.task import BackboneTask, TrainingError


class PretextTask(BackboneTask):
    """A task that needs no labels, and that can draw its inputs and targets.

    A class with `@PRETEXT_TASKS.register(Options)` has the signature (options, backbone options, seed). If its options
    have `supports_multi_task`, it also takes a backbone instead of backbone options (`backbone_of`).
    """

    @abstractmethod
    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """Inputs and targets as images, made by the code of `forward`; no network is run.

        Returns:
            Columns of a table with one row per image: caption, and RGB images (B, 3, h, w), uint8 or float in 0 to 255.
            The first column is the image.
        """


@dataclass(frozen=True)
class Trainable:
    """The task or tasks that a pretext trains.

    Attributes:
        backbone: of all tasks; it is exported.
        normalization: of images when later stages use the backbone.
        content: returns what the manifest records besides the weights, after training.
    """

    runs: Sequence[TaskRun]
    backbone: Backbone
    normalization: Normalize
    content: Callable[[], dict[str, Any]] = dict

    @property
    def chance_loss(self) -> float:
        """Chance-level loss, averaged over the steps of all tasks; some tasks measure it at the start of training."""
        return sum(run.task.chance_loss * run.weight for run in self.runs) / sum(run.weight for run in self.runs)


@dataclass(frozen=True)
class ModelInputs:
    """Inputs of the stage for a model that is not trained by gradient descent.

    Attributes:
        index: images, for models that need any.
        source: manifest of the pretext that a snapshot belongs to.
    """

    devices: Devices
    index: Index | None = None
    source: Path | None = None


@dataclass(frozen=True)
class BuiltModel:
    """A model that was not trained by gradient descent.

    Attributes:
        content: what the manifest records besides the weights.
    """

    backbone: Backbone
    normalization: Normalize
    content: dict[str, Any] = field(default_factory=dict)


PRETEXT_TASKS: Registry[Callable[..., PretextTask]] = Registry("ssltransfer.tasks.pretext")
FIXED_MODELS: Registry[Callable[[Pretext, ModelInputs], BuiltModel]] = Registry("ssltransfer.tasks.pretext")


def build_task(options: TaskOptions, backbone: BackboneOptions | Backbone, seed: int) -> PretextTask:
    """The task with a fresh head, on a fresh backbone or on one that other tasks train too."""
    return PRETEXT_TASKS[type(options)](options, backbone, seed)


def backbone_of(backbone: BackboneOptions | Backbone, seed: int) -> Backbone:
    """`backbone` itself, or a fresh one with these options."""
    return backbone if isinstance(backbone, Backbone) else build_backbone(backbone, include_top=False, seed=seed)


def partners(x: Tensor, task: str) -> Tensor:
    """Rows 1, 0, 3, 2, ... of (n, ...): each image's partner; a single image (validation) is its own.

    The partner is random, since the order is random. It does not depend on micro-batches and devices.

    Raises:
        TrainingError: n is odd.
    """
    n = len(x)
    if n % 2 and n > 1:
        raise TrainingError(
            f"{task} takes images in pairs; make batch_size and micro_batch_size even (a batch has {n})."
        )
    return x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1) if n > 1 else x
