"""Several tasks on one trunk, in turns (Doersch & Zisserman 2017; protocols 1.9)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import Tensor

from ssltransfer.artefacts.index import Index
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import Several
from ssltransfer.data.batches import Batch
from ssltransfer.data.draws import Draws, seed_of
from ssltransfer.models.build import build_trunk
from ssltransfer.models.mix import MixedTrunk
from ssltransfer.models.normalise import Normalise
from ssltransfer.models.trunk import Trunk
from ssltransfer.stages.pretext.base import PretextTask, Trainable
from ssltransfer.training.members import Member
from ssltransfer.training.task import Around


def together(spec: Pretext, pictures: Mapping[str, Index]) -> Trainable:
    """The tasks of a pretext on their trunk, in the order of their names.

    The first one has the pretext's seed, so that a task alone is the plain task; the others have seeds made of it and
    of their names.

    Args:
        spec: of a pretext whose task is `several`.
        pictures: index of each dataset that it names.
    """
    several = spec.task
    assert isinstance(several, Several)
    trunk = build_trunk(spec.trunk, top=False, seed=spec.seed)
    parts = spec.parts
    shares = several.shares_of({name: part.schedule.batch for name, part in parts.items() if part.schedule})
    rules: dict[str, Normalise] = {}
    members: list[Member] = []
    for name, part in parts.items():
        assert part.data is not None and part.schedule is not None
        seed = seed_of(spec.seed, "member", name) if members else spec.seed
        task = _task(part, trunk if several.lasso is None else MixedTrunk(trunk), seed)
        rules[name] = task.rule
        heldout = pictures[part.heldout] if part.heldout else None
        learned = task if several.lasso is None else Penalised(task, several.lasso)
        members.append(Member(learned, pictures[part.data], part.schedule, seed, heldout, name, shares[name]))

    def content() -> dict[str, Any]:
        mixes = {one.name: one.task.mix.rounded for one in members if isinstance(one.task, Penalised)}
        guesses = {one.name: one.task.guess for one in members}
        return {"guesses": guesses} | ({"mixes": mixes} if mixes else {})

    return Trainable(members, trunk, rules[several.rule_of or members[0].name], content)


def _task(part: Pretext, trunk: Trunk, seed: int) -> PretextTask:
    module = import_module(f"ssltransfer.stages.pretext.{part.task.module}")
    task: PretextTask = module.build(part.task, part.trunk, seed, trunk)
    return task


class Penalised(Around):
    """A task on a mixed trunk, with an L1 penalty of its mix; on held-out pictures the loss is the task's own.

    Args:
        task: whose trunk is a `MixedTrunk`.
        strength: what the penalty is multiplied with.
    """

    def __init__(self, task: PretextTask, strength: float):
        super().__init__()
        assert isinstance(task.trunk, MixedTrunk)
        self.task, self.mix, self.strength = task, task.trunk.mix, strength

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """The task's values, and `l1`, the sum of |alpha|."""
        values: dict[str, Tensor] = self.task(batch, draws)
        if not self.training:
            return values
        penalty = self.mix.penalty
        return values | {"loss": values["loss"] + self.strength * penalty, "l1": penalty}
