"""What is trained: one task, or several that take turns on what they have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

from ssltransfer.artifacts.index import Index
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch, load_batches, training_keys
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import Task, TrainingError


@dataclass(frozen=True)
class TaskRun:
    """A task with its images, and how it is trained.

    Attributes:
        task: network, head and loss; what it has in common with other runs are the same modules.
        index: training images.
        schedule: how; its learning rate is a function of the step of the whole training.
        seed: of order and augmentation, and of dropout where it is the first run.
        val: images on which the loss is also measured.
        name: what its values are called in the curve: `name.loss`; nothing where it is alone.
        weight: of the turns, in proportion.
    """

    task: Task
    index: Index
    schedule: Schedule
    seed: int
    val: Index | None = None
    name: str = ""
    weight: float = 1.0

    def values(self, found: dict[str, float]) -> dict[str, float]:
        """With the names that they have in the curve."""
        return {f"{self.name}.{key}" if self.name else key: value for key, value in found.items()}


def task_order(weights: Sequence[float]) -> Iterator[int]:
    """Whose turn it is at steps 0, 1, 2, ...

    Among the tasks that have had less than their share of the steps up to and with this one, the one whose next turn is
    due first (earliest deadline first; of equals, the first): after any number of steps each has had its share of them,
    to less than one turn.
    """
    # Whole numbers: no rounding error may grow with the steps.
    exact = [Fraction(share / sum(weights)).limit_denominator(10**6) for share in weights]
    common = math.lcm(*(share.denominator for share in exact))
    weights = [int(share * common) for share in exact]
    total = sum(weights)
    had = [0] * len(weights)
    step = 0
    while True:
        step += 1
        behind = [place for place, weight in enumerate(weights) if had[place] * total < weight * step]
        turn = min(behind, key=lambda place: (had[place] + 1) / weights[place])
        had[turn] += 1
        yield turn


def task_rounds(weights: Sequence[float], *, synchronous: bool) -> Iterator[tuple[int, ...]]:
    """The turns whose gradients are taken at the same weights: one after the other, or of all runs at once."""
    if synchronous:
        while True:
            yield tuple(range(len(weights)))
    for turn in task_order(weights):
        yield (turn,)


class TaskLoaders:
    """The batches of each run, as many as it has turns.

    Args:
        runs: in their order.
        plan: of whose turn it is at every step of the training.
        start: steps that are done.
        parts: (rank, number) of this process among those that share a run's batches, for each run; None where it
            takes no part in them.
        devices: of this process; its loader processes are divided among the runs.
    """

    def __init__(
        self,
        runs: Sequence[TaskRun],
        plan: Sequence[int],
        start: int,
        parts: Sequence[tuple[int, int] | None],
        devices: Devices,
    ):
        taken = [part for part in parts if part]
        self._workers = max(1, devices.workers // len(taken)) if devices.workers else 0
        self._pin = devices.device.type == "cuda"
        self._streams = [
            self._batches(run, plan[:start].count(place), plan.count(place), part) if part else iter(())
            for place, (run, part) in enumerate(zip(runs, parts, strict=True))
        ]

    def _batches(self, run: TaskRun, start: int, stop: int, part: tuple[int, int]) -> Iterator[Batch]:
        rank, number = part
        share = run.schedule.batch_size // number
        mine = slice(rank * share, (rank + 1) * share)
        whole = training_keys(len(run.index), run.schedule.batch_size, start, stop, run.seed)
        keys = (batch[mine] for batch in whole)
        return load_batches(run.index, run.task.transform, keys, seed=run.seed, workers=self._workers, pin=self._pin)

    def next(self, run: int) -> Batch:
        """This process's share of the run's next batch."""
        return next(self._streams[run])


def task_schedule(runs: Sequence[TaskRun], steps: int, *, synchronous: bool) -> list[int]:
    """Whose turn each step is."""
    order = task_rounds([run.weight for run in runs], synchronous=synchronous)
    return list(islice((turn for one in order for turn in one), steps))


def check_share(schedule: Schedule, world: int) -> None:
    """Refuse a batch that does not divide: every process has as many images, in pairs and in whole micro-batches."""
    share, micro = schedule.batch_size // world, schedule.micro_batch_size
    whole = schedule.batch_size % world == 0 and not (micro and share > micro and share % micro)
    if world > 1 and (not whole or share % 2):
        passes = f" in passes of {micro}" if micro else ""
        raise TrainingError(
            f"A batch of {schedule.batch_size} images{passes} cannot be shared by {world} devices, each with the same even"
            " number; change the number of devices (--devices), batch or micro_batch_size."
        )
