"""Every task that learns from single images, at sizes that take no time: for networks of 48 pixels."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from pydantic import TypeAdapter

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import BackboneOptions, CaffeNet
from ssltransfer.config.tasks import AnyTask
from ssltransfer.data.loader import Batch
from ssltransfer.models.backbone import Backbone
from ssltransfer.tasks.pretext.base import PretextTask, build_task
from ssltransfer.training.train_step import Trainer

TILES = {"crop": 60, "tile": 16, "jitter": 3, "channel_shift": 1, "stem_stride": 1}
NINE = {"tiles": {**TILES, "channel_shift": 0}, "resize": 66, "hidden_dim": 64, "embed_dim": 32, "bn_momentum": 0.1}
PATCHES = {
    "patch": 20,
    "gap": 8,
    "jitter": 3,
    "area_range": (4096, 5184),
    "crop_size": 60,
    "grids_per_image": 2,
    "stem_stride": 1,
}
UNSTEMMED = {"patch": 28, "gap": 8, "jitter": 3, "area_range": (5184, 6400), "crop_size": 72, "grids_per_image": 2}
HEAD = {"head_dims": (64, 32), "bottleneck_dim": 32}
TASKS: dict[str, dict[str, Any]] = {
    "jigsaw": {"name": "jigsaw", "permutations": 8, "tiles": TILES, "resize": 60, "hidden_dim": 64},
    "jigsaw++": {"name": "jigsaw++", "permutations": 8, "tiles": TILES, "resize": 60, "hidden_dim": 64},
    "jigsaw-kolesnikov": {"name": "jigsaw-kolesnikov", "permutations": 8, "permutations_per_image": 4, **NINE},
    "gray patches": {
        "name": "jigsaw-kolesnikov",
        "permutations": 8,
        "permutations_per_image": 4,
        "grayscale_per_patch": True,
        **NINE,
    },
    "relative-patch-location": {"name": "relative-patch-location", **NINE},
    "exemplar": {"name": "exemplar", "num_views": 4, "embed_dim": 32, "min_scale": 0.3},
    "exemplar-batch": {"name": "exemplar", "num_views": 4, "embed_dim": 32, "min_scale": 0.3, "norm_axis": "batch"},
    "drop": {"name": "relative-position", "color_mode": "drop", "hidden_dim": 64, **PATCHES},
    "project": {"name": "relative-position", "color_mode": "project", "hidden_dim": 64, **PATCHES},
    "rotation": {"name": "rotation", "hidden_dim": 64},
    "rotation-inception": {"name": "rotation", "hidden_dim": 64, "augment": "inception"},
    "residual": {"name": "relative-position-residual", "hidden_dim": 64, "head": HEAD, **UNSTEMMED},
    "harmonized": {
        "name": "relative-position-residual",
        "lightness_input": True,
        "hidden_dim": 64,
        "head": HEAD,
        **UNSTEMMED,
    },
    "colorization": {"name": "colorization", "resize": 48, "hidden_dim": 64},
    "exemplar-patches": {"name": "exemplar-patches", "resize": 64, "patch": 32, "head": HEAD},
    "rotation-crop": {"name": "rotation", "hidden_dim": 64, "augment": "crop"},
}
SMALL = CaffeNet(width_mult=0.125, img_size=48, stem_stride=2)


def small_task(name: str, backbone: BackboneOptions | Backbone = SMALL) -> PretextTask:
    """A task of `TASKS`, with seed 0."""
    options: Any = TypeAdapter(AnyTask).validate_python(TASKS[name])
    return build_task(options, backbone, 0)


def batch_of(task: PretextTask, index: Index) -> Batch:
    """Eight drawn images as the loader would give them."""
    image = torch.randint(0, 256, (3, 90, 100), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    parts = [task.transform(index, 0, image, Random(i)) for i in range(8)]
    return Batch(torch.stack([p["image"] for p in parts]), torch.arange(8), torch.zeros(8, dtype=torch.int64))


def train_step(trainer: Trainer, batch: Batch) -> dict[str, float]:
    """One step with the learning rate of the schedule; the mean values of the batch."""
    values = trainer.forward_backward(batch).read()
    trainer.optimizer_step(trainer.schedule.lr)
    return values
