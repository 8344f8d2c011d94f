"""Multi-task training on one backbone (Doersch & Zisserman 2017; protocols 1.9)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ssltransfer.artifacts.index import Index
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import MultiTask
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.models.build import build_backbone
from ssltransfer.models.layer_mix import MixedBackbone
from ssltransfer.models.normalize import Normalize
from ssltransfer.tasks.pretext.base import PretextTask, Trainable, build_task
from ssltransfer.training.multi_task import TaskRun
from ssltransfer.training.task import TaskWrapper


def together(spec: Pretext, images: Mapping[str, Index]) -> Trainable:
    """The tasks of a multi-task pretext on their common backbone, in the order of their names.

    The first task has the pretext's seed, so that a single task gives the same result as without multi-task. The seeds
    of the others depend on it and on their names. `images` has the index of each dataset.
    """
    multi = spec.task
    assert isinstance(multi, MultiTask)
    backbone = build_backbone(spec.backbone, include_top=False, seed=spec.seed)
    parts = spec.parts
    shares = multi.task_weights({name: part.schedule.batch_size for name, part in parts.items() if part.schedule})
    normalizations: dict[str, Normalize] = {}
    runs: list[TaskRun] = []
    for name, part in parts.items():
        assert part.data is not None and part.schedule is not None
        seed = seed_of(spec.seed, "member", name) if runs else spec.seed
        shared = backbone if multi.l1_layer_mix is None else MixedBackbone(backbone)
        task = build_task(part.task, shared, seed)
        normalizations[name] = task.normalization
        val = images[part.val] if part.val else None
        learned = task if multi.l1_layer_mix is None else WithL1Penalty(task, multi.l1_layer_mix)
        runs.append(TaskRun(learned, images[part.data], part.schedule, seed, val, name, shares[name]))

    def content() -> dict[str, Any]:
        mixes = {run.name: run.task.mix.rounded for run in runs if isinstance(run.task, WithL1Penalty)}
        chance_losses = {run.name: run.task.chance_loss for run in runs}
        return {"chance_losses": chance_losses} | ({"mixes": mixes} if mixes else {})

    return Trainable(runs, backbone, normalizations[multi.normalization_from or runs[0].name], content)


class WithL1Penalty(TaskWrapper):
    """A task on a `MixedBackbone`, with `strength` times the L1 norm of its layer mix as a penalty in training."""

    def __init__(self, task: PretextTask, strength: float):
        super().__init__()
        assert isinstance(task.backbone, MixedBackbone)
        self.task, self.mix, self.strength = task, task.backbone.mix, strength

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """The task's values, and `l1`, the sum of |alpha|."""
        values: dict[str, Tensor] = self.task(batch, rng)
        if not self.training:
            return values
        penalty = self.mix.penalty
        return values | {"loss": values["loss"] + self.strength * penalty, "l1": penalty}
