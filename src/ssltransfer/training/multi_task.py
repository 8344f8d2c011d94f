"""Multi-task training: tasks with common modules, such as a backbone, and a step of one of them at a time."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, cycle, islice
from pathlib import Path

from torch import Tensor

from ssltransfer.artifacts.index import Index
from ssltransfer.config.schedule import Schedule
from ssltransfer.logs import heartbeat, logger
from ssltransfer.training.checkpoint import Checkpoint
from ssltransfer.training.curve import Curve, TrainResult, describe_losses
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import (
    check_data,
    check_ranks_agree,
    not_finite,
    resume_text,
    seed_step,
    train_loader,
    validate,
)
from ssltransfer.training.pending import Pending
from ssltransfer.training.progress import Progress
from ssltransfer.training.task import Task
from ssltransfer.training.task_parallel import TaskParallel
from ssltransfer.training.train_step import Trainer


@dataclass(frozen=True)
class TaskRun:
    """A task with its images and its schedule.

    Attributes:
        task: network, head and loss. Tasks share modules by holding the same ones.
        index: training images.
        schedule: its learning rate is a function of the step of the whole training.
        seed: of order and augmentation. The seed of the first task also seeds dropout.
        val: images for the validation loss.
        name: prefix of its columns in the curve: `name.loss`.
        weight: its share of the steps, in proportion.
    """

    task: Task
    index: Index
    schedule: Schedule
    seed: int
    val: Index | None = None
    name: str = ""
    weight: float = 1.0

    def columns(self, values: Mapping[str, float]) -> dict[str, float]:
        """Values by their column in the curve."""
        return {f"{self.name}.{key}": value for key, value in values.items()}


def fit_multi_task(
    runs: Sequence[TaskRun],
    total: int,
    *,
    folder: Path,
    devices: Devices,
    synchronous: bool = False,
    save_snapshot: Callable[[int], None] = lambda step: None,
    snapshot_steps: Collection[int] = (),
) -> TrainResult:
    """Train tasks with common modules. Resumes from the checkpoint in `folder`, if there is one.

    Restarts and several processes work as in `fit`. Each task has its own optimizer, over its head and the common
    modules. Batch norms in common modules, with their statistics, belong to all tasks.

    Args:
        runs: the tasks; moved to the device and trained in place.
        total: steps of all tasks together.
        synchronous: the gradients of all tasks are taken at the same weights, then the optimizers step one after the
            other. If the number of processes is a multiple of the number of tasks, each process computes one task.
        save_snapshot: called after each of `snapshot_steps` (if synchronous, after its round), in every process.
        snapshot_steps: steps.

    Raises:
        TrainingError, Interrupted: as for `fit`.
    """
    per_task = synchronous and devices.world % len(runs) == 0
    for run in runs:
        check_data(run.index, run.schedule, devices.world // len(runs) if per_task else devices.world)
    checkpoint = Checkpoint(folder / "checkpoint.pt", rank=devices.rank, world=devices.world)
    trainers = [Trainer(run.task, run.schedule, run.seed, devices) for run in runs]
    curve = Curve(total, folder / "curve.jsonl" if devices.rank == 0 else None)
    state = checkpoint.load()
    start: int = state["step"] if state else 0
    check_ranks_agree(folder, start, devices)
    if state:
        for trainer, saved in zip(trainers, state["tasks"], strict=True):
            trainer.load_state_dict(saved)
        curve.load_state_dict(state["curve"])
    else:
        for run in runs:
            with heartbeat(lambda name=run.name: f"statistics of {name} before the first step"):  # type: ignore[misc]
                run.task.on_train_start(run.index, devices)
    parallel = TaskParallel([run.task for run in runs], devices, checkpoint, group_per_task=per_task)
    described = (f"{run.name} ({len(run.index)} images, batches of {run.schedule.batch_size})" for run in runs)
    logger.info(f"{total} steps of the tasks {', '.join(described)}, {resume_text(start)}; {devices}")

    order = cycle(range(len(runs))) if synchronous else task_order([run.weight for run in runs])
    schedule = list(islice(order, total))
    mine = [task for task in range(len(runs)) if parallel.computes(task)]
    workers = max(1, devices.workers // len(mine)) if devices.workers else 0
    loaders = {}
    for task in mine:
        run, steps = runs[task], range(schedule[:start].count(task), schedule.count(task))
        loaders[task] = train_loader(
            run.task, run.index, run.schedule, run.seed, steps, parallel.part, devices, workers=workers
        )
    round_size = len(runs) if synchronous else 1
    with checkpoint, Progress("train", start, total, runs[0].schedule.batch_size) as progress:
        for first in range(start, total, round_size):
            tasks, done = schedule[first : first + round_size], min(first + round_size, total)
            batches = {
                task: progress.next(loaders[task]).to(devices.device, devices.copies)
                for task in tasks
                if task in loaders
            }
            pending: dict[int, Pending] = {}
            gradients: dict[int, list[Tensor | None]] = {}
            for step, task in enumerate(tasks, first):
                if task in batches:
                    seed_step(runs[0].seed, step, parallel.part[0])
                    pending[task] = trainers[task].forward_backward(batches[task])
                    gradients[task] = trainers[task].pop_grads()
            for step, task in enumerate(tasks, first):
                trainers[task].set_grads(parallel.all_reduce_gradients(task, gradients.get(task)))
                trainers[task].optimizer_step(runs[task].schedule.lr_at(step, len(runs[task].index)))
            values = parallel.all_reduce_metrics({task: one.read() for task, one in pending.items()})
            for step, task in enumerate(tasks, first):
                run = runs[task]
                run.task.after_step(step)
                if math.isfinite(values[task]["loss"]):
                    curve.update(run.columns(values[task]) | {"loss": values[task]["loss"]})
                elif not trainers[task].skips_overflow():
                    raise not_finite(trainers[task], batches.get(task), step, len(run.index), folder, run.name)
                progress.step(run.schedule.batch_size)

            if curve.row_due(first, done):
                row = _position(runs, schedule, done) | curve.means()
                for run in runs:
                    if run.val is not None and curve.validation_due(first, done):
                        row |= run.columns(validate(run.task, run.val, run.schedule, seed=run.seed, devices=devices))
                curve.add_row(row)
                progress.log(describe_losses(row, {f"{run.name}.loss": run.task.chance_loss for run in runs}))
            if any(first < step <= done for step in snapshot_steps):
                save_snapshot(done)
            if done == total or checkpoint.due(done):
                states = [trainer.state_dict() for trainer in trainers]
                checkpoint.save({"step": done, "tasks": states, "curve": curve.state_dict()}, done)
    curve.write()
    return TrainResult(curve.rows, progress.close())


def _position(runs: Sequence[TaskRun], schedule: Sequence[int], done: int) -> dict[str, float]:
    """Step, and epoch and learning rate of each task."""
    row: dict[str, float] = {"step": done}
    for task, run in enumerate(runs):
        epoch = round(schedule[:done].count(task) * run.schedule.batch_size / len(run.index), 4)
        row |= run.columns({"epoch": epoch, "lr": run.schedule.lr_at(done - 1, len(run.index))})
    return row


def task_order(weights: Sequence[float]) -> Iterator[int]:
    """The task of steps 0, 1, 2, ..., each task in proportion to its weight.

    Among the tasks that have had less than their share of the steps up to and including this one, the task whose next
    step is due first (earliest deadline first; of equals, the first). After any number of steps each task has had its
    share, to less than one step.
    """
    # Whole numbers: no rounding error may grow with the steps.
    exact = [Fraction(weight / sum(weights)).limit_denominator(10**6) for weight in weights]
    denominator = math.lcm(*(weight.denominator for weight in exact))
    shares = [int(weight * denominator) for weight in exact]
    total = sum(shares)
    had = [0] * len(shares)
    for step in count(1):
        behind = [task for task, share in enumerate(shares) if had[task] * total < share * step]
        task = min(behind, key=lambda task: (had[task] + 1) / shares[task])
        had[task] += 1
        yield task
