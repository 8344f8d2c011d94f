"""Several tasks on one backbone, in turns (Doersch & Zisserman 2017; protocols 1.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ssltransfer.artifacts.index import Index
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import MultiTask
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import Draws, seed_of
from ssltransfer.models.build import build_backbone
from ssltransfer.models.layer_mix import MixedBackbone
from ssltransfer.models.normalize import Normalize
from ssltransfer.tasks.pretext.base import PretextTask, Trainable, build_task
from ssltransfer.training.multi_task import Member
from ssltransfer.training.task import Around


def together(spec: Pretext, images: Mapping[str, Index]) -> Trainable:
    """The tasks of a pretext on their backbone, in the order of their names.

    The first one has the pretext's seed, so that a task alone is the plain task; the others have seeds made of it and
    of their names.

    Args:
        spec: of a pretext whose task is `multi-task`.
        images: index of each dataset that it names.
    """
    multi = spec.task
    assert isinstance(multi, MultiTask)
    backbone = build_backbone(spec.backbone, top=False, seed=spec.seed)
    parts = spec.parts
    shares = multi.task_weights({name: part.schedule.batch_size for name, part in parts.items() if part.schedule})
    rules: dict[str, Normalize] = {}
    members: list[Member] = []
    for name, part in parts.items():
        assert part.data is not None and part.schedule is not None
        seed = seed_of(spec.seed, "member", name) if members else spec.seed
        shared = backbone if multi.l1_layer_mix is None else MixedBackbone(backbone)
        task = build_task(part.task, part.backbone, seed, shared)
        rules[name] = task.rule
        val = images[part.val] if part.val else None
        learned = task if multi.l1_layer_mix is None else WithL1Penalty(task, multi.l1_layer_mix)
        members.append(Member(learned, images[part.data], part.schedule, seed, val, name, shares[name]))

    def content() -> dict[str, Any]:
        mixes = {one.name: one.task.mix.rounded for one in members if isinstance(one.task, WithL1Penalty)}
        chance_losses = {one.name: one.task.chance_loss for one in members}
        return {"chance_losses": chance_losses} | ({"mixes": mixes} if mixes else {})

    return Trainable(members, backbone, rules[multi.normalization_from or members[0].name], content)


class WithL1Penalty(Around):
    """A task on a mixed backbone, with an L1 penalty of its mix; on validation images the loss is the task's own.

    Args:
        task: whose backbone is a `MixedBackbone`.
        strength: what the penalty is multiplied with.
    """

    def __init__(self, task: PretextTask, strength: float):
        super().__init__()
        assert isinstance(task.backbone, MixedBackbone)
        self.task, self.mix, self.strength = task, task.backbone.mix, strength

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """The task's values, and `l1`, the sum of |alpha|."""
        values: dict[str, Tensor] = self.task(batch, draws)
        if not self.training:
            return values
        penalty = self.mix.penalty
        return values | {"loss": values["loss"] + self.strength * penalty, "l1": penalty}
