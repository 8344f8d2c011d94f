"""The one loop that trains everything."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ssltransfer.artifacts.files import write_text
from ssltransfer.artifacts.index import Index
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.data.rng import seed_of
from ssltransfer.training.checkpoint import Checkpoint
from ssltransfer.training.devices import Devices
from ssltransfer.training.multi_task import TaskLoaders, TaskRun, task_schedule
from ssltransfer.training.progress import Progress
from ssltransfer.training.task import Task, TrainingError
from ssltransfer.training.train_step import Trainer

ROWS = 100  # of a learning curve
VAL_MEASUREMENTS = 20  # along a training
VAL_IMAGES = 2048  # of the validation set, evenly spaced


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves besides the weights.

    Attributes:
        curve: rows of {step, epoch, lr, loss, ...}, validation values as val_*; of several tasks each has its own, as
            `name.loss`, and `loss` is the mean over the steps.
        measured: what varies between equal runs, for run.json.
    """

    curve: list[dict[str, float]]
    measured: dict[str, Any]

    def summary(self, chance_loss: float) -> dict[str, float]:
        """Last values, beside the chance-level loss."""
        last: dict[str, float] = {}
        for row in self.curve:
            last |= row
        return last | {"chance_loss": chance_loss}


def fit(
    task: Task,
    index: Index,
    schedule: Schedule,
    *,
    seed: int,
    folder: Path,
    devices: Devices,
    val: Index | None = None,
) -> TrainResult:
    """Train `task` on the images of `index`; go on from `folder` where an earlier run was cut off.

    Args:
        task: network, head and loss; moved to the device and trained in place.
        index: training images.
        schedule: how long and how.
        seed: of order, augmentation and dropout.
        folder: work directory: checkpoint.pt and curve.jsonl lie here.
        devices: where; with several processes each calls this, and the first one writes.
        val: images on which the loss is also measured.

    Raises:
        TrainingError: the loss is not finite, there is nothing to train on, or a batch cannot be shared.
        Interrupted: told to end; the work is saved.
    """
    steps = schedule.total_steps(len(index)) if len(index) else 0
    return fit_multi_task([TaskRun(task, index, schedule, seed, val)], steps, folder=folder, devices=devices)


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
    """Train tasks that have modules in common, such as a backbone; go on from `folder` where a run was cut off.

    Whose turn it is, images, random numbers and learning rate are functions of the global step, so an interrupted
    training ends with the same bytes as an undisturbed one (on a CPU with the same number of threads, and of
    processes). Several processes take equal shares of each batch and come to the weights that one would come to, up to
    rounding; batch norms see a share unless `sync_bn`, and dropout differs. A task has the optimizer and the state of
    one to itself, over its head and what is common; norms in what is common, with their statistics, belong to all.

    Args:
        runs: one or several; moved to the device and trained in place.
        total: steps altogether: updates, of whichever task.
        folder, devices: as for `fit`.
        synchronous: all runs take their gradients at the same weights; then their updates follow one another. Processes
            that can be divided among the runs do this side by side.
        save_snapshot: called after each of the steps `snapshot_steps` (or, at once, after the round that it belongs to), in every process.

    Raises:
        TrainingError, Interrupted: as for `fit`.
    """
    for run in runs:
        if not len(run.index):
            raise TrainingError("There are no images to train on; check the dataset's left-out list.")
    checkpoint = Checkpoint(folder / "checkpoint.pt", rank=devices.rank, world=devices.world)
    training = Trainer(runs, devices, checkpoint, synchronous=synchronous)
    curve: list[dict[str, float]] = []
    sums = MeanMeter()
    start = 0
    state = checkpoint.load()
    if state:
        training.load(state)
        start, curve, sums = state["step"], state["curve"], MeanMeter(state["sums"])
    _check_ranks_agree(folder, start, devices)
    if not start:
        for run in runs:
            run.task.on_train_start(run.index, devices)
    origin = f"going on after step {start}" if start else "from nothing"
    print(f"{_describe(runs, total)}, {origin}; {devices}", flush=True)

    every = max(1, total // ROWS)
    measure_every = every * max(1, ROWS // VAL_MEASUREMENTS)
    plan = task_schedule(runs, total, synchronous=synchronous)
    size = len(runs) if synchronous else 1
    streams = TaskLoaders(runs, plan, start, training.parts, devices)
    with checkpoint:
        progress = Progress("train", start, total, runs[0].schedule.batch_size)
        for first in range(start, total, size):
            turns, done = plan[first : first + size], min(first + size, total)
            waiting = time.monotonic()
            batches = {turn: streams.next(turn).to(devices.device) for turn in turns if training.parts[turn]}
            waited = time.monotonic() - waiting
            found = training.round(batches, turns, first)
            for step, (turn, values) in enumerate(zip(turns, found, strict=True), start=first):
                run = runs[turn]
                if not math.isfinite(values["loss"]):
                    _report_not_finite(run, batches.get(turn), step, folder, devices)
                run.task.after_step(step)
                sums.update(run, values)
                progress.step(waited / size, run.schedule.batch_size)
            if _reached(every, first, done, total):
                row = _row(runs, plan, first, done) | sums.means()
                for run in runs:
                    if run.val is not None and _reached(measure_every, first, done, total):
                        row |= run.values(validate(run.task, run.val, run.schedule, seed=run.seed, devices=devices))
                curve.append(row)
                sums = MeanMeter()
                progress.log(_losses(runs, row))
            if any(first < step <= done for step in snapshot_steps):
                save_snapshot(done)
            if checkpoint.due(done) and done < total:
                checkpoint.save(training.state() | {"step": done, "curve": curve, "sums": sums.state}, done)
        measured = progress.close()
        if start < total:
            # The state after the last step, so that a job killed while it exports does not train again.
            checkpoint.save(training.state() | {"step": total, "curve": curve, "sums": sums.state}, total)
    training.close()
    if devices.rank == 0:
        write_text(folder / "curve.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in curve))
    return TrainResult(curve, measured)


def _reached(interval: int, first: int, done: int, total: int) -> bool:
    """Whether a multiple of the interval, or the end, lies among steps first + 1 to done."""
    return done // interval > first // interval or done == total


class MeanMeter:
    """Values since the last row of the curve, with how often each was there."""

    def __init__(self, state: dict[str, list[float]] | None = None):
        self.state = state or {}

    def update(self, run: TaskRun, values: dict[str, float]) -> None:
        """Those of one step."""
        shown = run.values(values) | {"loss": values["loss"]}
        for name, value in shown.items():
            total, times = self.state.get(name, [0.0, 0])
            self.state[name] = [total + value, times + 1]

    def means(self) -> dict[str, float]:
        """Each over the steps at which it was there."""
        return {name: total / times for name, (total, times) in self.state.items()}


def _describe(runs: Sequence[TaskRun], total: int) -> str:
    if len(runs) == 1:
        return f"{len(runs[0].index)} images, {total} steps of {runs[0].schedule.batch_size}"
    each = (f"{one.name} ({len(one.index)} images, batches of {one.schedule.batch_size})" for one in runs)
    return f"{total} steps of {', '.join(each)} in turns"


def _row(runs: Sequence[TaskRun], plan: Sequence[int], first: int, done: int) -> dict[str, float]:
    """Where the training is: epochs, and learning rate of each run's last step."""
    row: dict[str, float] = {"step": done}
    for place, run in enumerate(runs):
        seen = plan[:done].count(place) * run.schedule.batch_size / len(run.index)
        row |= run.values({"epoch": round(seen, 4), "lr": run.schedule.lr_at(done - 1, len(run.index))})
    return row


def _losses(runs: Sequence[TaskRun], row: dict[str, float]) -> str:
    values = ((one, one.values({"loss": 0.0})) for one in runs)
    shown = ((one, key) for one, keys in values for key in keys if key in row)
    return ", ".join(
        f"{key.replace('.', ' ')} {row[key]:.3f} (chance {one.task.chance_loss:.3f})" for one, key in shown
    )


def _check_ranks_agree(folder: Path, start: int, devices: Devices) -> None:
    """Refuse to go on from different checkpoints: a shared file system may show an old one for a while."""
    starts = devices.all_gather(start)
    if len(set(starts)) > 1:
        raise TrainingError(
            f"{folder}: the processes see checkpoints of different steps ({', '.join(map(str, starts))}); this folder "
            "must be on a file system that all of them share; run the same command again."
        )


@torch.no_grad()
def validate(task: Task, val: Index, schedule: Schedule, *, seed: int, devices: Devices) -> dict[str, float]:
    """Mean values of the task on validation images, as val_*; the same draws each time."""
    step = max(1, -(-len(val) // VAL_IMAGES))
    ids = list(range(0, len(val), step))
    if len(ids) % 2:  # tasks that take images in pairs
        ids = ids[:-1] or ids
    keys = islice(
        sequential_keys(ids, schedule.micro_batch_size or schedule.batch_size), devices.rank, None, devices.world
    )
    was = task.training
    task.eval()
    sums: dict[str, float] = {}
    total: dict[str, float] = {}
    for batch in load_batches(val, task.val_transform, keys, seed=seed, workers=devices.workers):
        batch = batch.to(devices.device)
        with devices.autocast(schedule.precision):
            outputs = task(batch, batch.rng(seed_of(seed, "val")))
        for name, value in outputs.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
    task.train(was)
    for other in devices.all_gather(sums):
        total |= {name: total.get(name, 0.0) + value for name, value in other.items()}
    return {f"val_{name}": value / len(ids) for name, value in total.items()}


def _report_not_finite(run: TaskRun, batch: Batch | None, step: int, folder: Path, devices: Devices) -> None:
    bad = [name for name, p in run.task.named_parameters() if not torch.isfinite(p).all()]
    file = folder / (f"not_finite-{devices.rank}.pt" if devices.world > 1 else "not_finite.pt")
    if batch is not None:
        torch.save({"ids": batch.ids.cpu(), "images": batch.images.cpu()}, file)
    where = f"; not finite: {', '.join(bad[:3])}" if bad else ""
    whose = f" of {run.name}" if run.name else ""
    lr = run.schedule.lr_at(step, len(run.index))
    raise TrainingError(
        f"The loss{whose} is not finite at step {step} (learning rate {lr:g}{where}); lower the learning rate or warm "
        f"up. The batch is in {folder / 'not_finite-*.pt' if devices.world > 1 else file}."
    )
