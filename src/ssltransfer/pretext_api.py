"""Pretext tasks in training code of your own.

    task = ssltransfer.pretext_task("rotation", {"name": "resnet18", "img_size": 64})
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05)
    for batch in ssltransfer.batches(task, "photos", batch_size=64, epochs=2):
        loss = task(batch, batch.rng(seed=0))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

`task.backbone` is a torch module, which maps images float (B, 3, S, S) to features by layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, TypeAdapter, ValidationError

from ssltransfer.api import Images, index_images
from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import BACKBONES, AnyBackbone
from ssltransfer.config.base import ConfigError, explain
from ssltransfer.config.tasks import TASKS, AnyTask
from ssltransfer.data.loader import Batch, load_batches, training_keys
from ssltransfer.tasks.pretext.base import PretextTask, build_task
from ssltransfer.training.devices import Devices


def pretext_task(task: str | Mapping[str, Any], backbone: str | Mapping[str, Any], *, seed: int = 0) -> PretextTask:
    """A pretext task with a fresh head on a fresh backbone, a torch module.

    Its `forward` takes a batch and random numbers and returns scalars, `loss` among them. `backbone`, `normalization`
    and `chance_loss` are attributes.

    Args:
        task, backbone: names, or mappings of the options of a configuration: {"name": "rotation", "hidden_dim": 256}.
        seed: of the initial weights.

    Raises:
        ConfigError: no such name or option, or a task that is not trained by gradient descent on images alone.
    """
    options = _parsed(TypeAdapter(AnyTask), task, "task", TASKS)
    network = _parsed(TypeAdapter(AnyBackbone), backbone, "backbone", BACKBONES)
    try:
        return build_task(options, network, seed).to(memory_format=torch.channels_last)
    except KeyError:
        raise ConfigError(f"task: {options.name} is not trained on its own; name another one.") from None


def batches(
    task: PretextTask,
    images: Images | Index,
    batch_size: int,
    *,
    epochs: float = 1,
    seed: int = 0,
    workers: int = 0,
) -> Iterator[Batch]:
    """Batches of images as a task needs them, on the device of its weights, in the order of a training with this seed.

    What the task measures of its training images (colorization's prior) is measured before the first batch.

    Args:
        task: of `pretext_task`.
        images: a folder or archive, whose unreadable images are skipped, files, or an index.
        batch_size: images per batch; all batches are full.
        epochs: passes over the images.
        seed: of the order and of random crops.
        workers: loader processes.

    Raises:
        ArtifactError: a file is missing or corrupt, or the folder has no image.
    """
    index = images if isinstance(images, Index) else index_images(images, None)
    device = next(task.parameters()).device
    task.on_train_start(index, Devices(device, workers))
    keys = training_keys(len(index), batch_size, 0, int(epochs * len(index)) // batch_size, seed)
    for batch in load_batches(index, task.transform, keys, seed=seed, workers=workers, pin=device.type == "cuda"):
        yield batch.to(device)


def _parsed(
    kind: TypeAdapter[Any], given: str | Mapping[str, Any], where: str, classes: Sequence[type[BaseModel]]
) -> Any:
    try:
        return kind.validate_python(given if isinstance(given, str) else dict(given))
    except ValidationError as error:
        names = {str(entry.model_fields["name"].default): entry for entry in classes}
        raise ConfigError(explain(error, where, names)) from None
