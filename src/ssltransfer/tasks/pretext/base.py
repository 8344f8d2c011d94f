"""What all pretext tasks give: a backbone, and the rule by which its images are normalized afterwards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks.base import TaskOptions
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.normalize import Normalize
from ssltransfer.registry import Registry
from ssltransfer.training.devices import Devices
from ssltransfer.training.multi_task import TaskRun
from ssltransfer.training.task import BackboneTask, TrainingError


class PretextTask(BackboneTask):
    """A task that needs no labels, and shows what it asks."""

    @abstractmethod
    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """Inputs and targets as a person can see them, made as `forward` makes them; no network is run.

        Returns:
            Columns of a table that has a row for each image of the batch: a caption, and (B, 3, h, w) RGB, uint8 or
            float on the scale 0 to 255. The first column is the image.
        """


@dataclass(frozen=True)
class Trainable:
    """What a pretext trains: a task, or several.

    Attributes:
        backbone: what all tasks train, and what is exported.
        normalization: how images are normalized when the backbone is used afterwards.
        content: what the manifest says of it beyond the weights, once it is trained.
    """

    runs: Sequence[TaskRun]
    backbone: Backbone
    normalization: Normalize
    content: Callable[[], dict[str, Any]] = dict

    @property
    def chance_loss(self) -> float:
        """Chance-level loss; of several the mean over the steps. Some know it once they have seen their images."""
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


def build_task(
    options: TaskOptions, backbone: BackboneOptions, seed: int, shared: Backbone | None = None
) -> PretextTask:
    """The task with a fresh head, on a fresh backbone or on one that other tasks train too (`shared`)."""
    common = {} if shared is None else {"shared": shared}
    return PRETEXT_TASKS[type(options)](options, backbone, seed, **common)


def paired_indices(n: int, task: str) -> Tensor:
    """The places of each image's other image in a batch: 1, 0, 3, 2, ...; a image alone (validation) is its own.

    A random other image, since the order is random, and the same one however a batch is divided over micro-batches
    and devices.

    Raises:
        TrainingError: n is odd.
    """
    if n % 2 and n > 1:
        raise TrainingError(f"{task} takes images in pairs; make batch and micro_batch_size even (one has {n}).")
    return torch.arange(n) ^ (n > 1)
