"""The one loop that trains everything."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssltransfer.artefacts.files import write_text
from ssltransfer.artefacts.index import Index
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.batches import Batch, load_batches, sequential_keys, training_keys
from ssltransfer.data.draws import seed_of
from ssltransfer.training.checkpoint import Checkpoint
from ssltransfer.training.devices import Devices
from ssltransfer.training.progress import Progress
from ssltransfer.training.ranks import Ranks
from ssltransfer.training.sync_norms import synchronise_norms
from ssltransfer.training.task import Task

ROWS = 100  # of a learning curve
HELDOUT_MEASUREMENTS = 20  # along a training
HELDOUT_PICTURES = 2048  # of the held-out set, evenly spaced


class TrainingError(RuntimeError):
    """Training cannot go on: one clear sentence."""


@dataclass(frozen=True)
class Fitted:
    """What a training leaves besides the weights.

    Attributes:
        curve: rows of {step, epoch, lr, loss, ...}, held-out values as heldout_*.
        measured: what varies between equal runs, for run.json.
    """

    curve: list[dict[str, float]]
    measured: dict[str, Any]

    def summary(self, guess: float) -> dict[str, float]:
        """Last values, beside the loss of a guess."""
        last: dict[str, float] = {}
        for row in self.curve:
            last |= row
        return last | {"guess": guess}


def fit(
    task: Task,
    index: Index,
    schedule: Schedule,
    *,
    seed: int,
    folder: Path,
    devices: Devices,
    heldout: Index | None = None,
) -> Fitted:
    """Train `task` on the pictures of `index`; go on from `folder` where an earlier run was cut off.

    Pictures, random numbers and learning rate are functions of the global step, so an interrupted training ends with
    the same bytes as an undisturbed one (on a CPU with the same number of threads, and of processes). Several processes
    take equal shares of each batch and come to the weights that one would come to, up to rounding; batch norms see a
    share unless `sync_bn`, and dropout differs.

    Args:
        task: network, head and loss; moved to the device and trained in place.
        index: training pictures.
        schedule: how long and how.
        seed: of order, augmentation and dropout.
        folder: work directory: checkpoint.pt and curve.jsonl lie here.
        devices: where; with several processes each calls this, and the first one writes.
        heldout: pictures on which the loss is also measured.

    Raises:
        TrainingError: the loss is not finite, there is nothing to train on, or a batch cannot be shared.
        Interrupted: told to end; the work is saved.
    """
    if not len(index):
        raise TrainingError("There are no pictures to train on; check the dataset's left-out list.")
    _check_share(schedule, devices.world)
    total = schedule.total_steps(len(index))
    checkpoint = Checkpoint(folder / "checkpoint.pt", rank=devices.rank, world=devices.world)
    training = Training(task, schedule, seed, devices, checkpoint)
    curve: list[dict[str, float]] = []
    sums: dict[str, float] = {}
    start = 0
    state = checkpoint.load()
    if state:
        training.load(state)
        start, curve, sums = state["step"], state["curve"], state["sums"]
    _check_alike(folder, start, devices)
    if not start:
        task.survey(index, devices)
    checkpoint.listen()
    origin = f"going on after step {start}" if start else "from nothing"
    print(f"{len(index)} pictures, {total} steps of {schedule.batch}, {origin}; {devices}", flush=True)

    every = max(1, total // ROWS)
    measure_every = every * max(1, ROWS // HELDOUT_MEASUREMENTS)
    batches = _batches(task, index, schedule, seed, start, total, devices)
    progress = Progress("train", start, total, schedule.batch)
    for step in range(start, total):
        waiting = time.monotonic()
        batch = next(batches).to(devices.device)
        waited = time.monotonic() - waiting
        lr = schedule.lr_at(step, len(index))
        values = training.step(batch, step, lr)
        if not math.isfinite(values["loss"]):
            _report_not_finite(task, batch, step, lr, folder, devices)
        task.after_step(step)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value
        sums["n"] = sums.get("n", 0.0) + 1
        progress.step(waited)
        done = step + 1
        if done % every == 0 or done == total:
            row = {"step": done, "epoch": round(done * schedule.batch / len(index), 4), "lr": lr}
            row |= {name: value / sums["n"] for name, value in sums.items() if name != "n"}
            if heldout is not None and (done % measure_every == 0 or done == total):
                row |= measure(task, heldout, schedule, seed=seed, devices=devices)
            curve.append(row)
            sums = {}
            progress.say(f"loss {row['loss']:.3f} (guess {task.guess:.3f})")
        if checkpoint.due(done) and done < total:
            checkpoint.save(training.state() | {"step": done, "curve": curve, "sums": sums}, done)
    measured = progress.close()
    if start < total:
        # The state after the last step, so that a job killed while it exports does not train again.
        checkpoint.save(training.state() | {"step": total, "curve": curve, "sums": sums}, total)
    checkpoint.close()
    training.close()
    if devices.rank == 0:
        write_text(folder / "curve.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in curve))
    return Fitted(curve, measured)


def _batches(
    task: Task, index: Index, schedule: Schedule, seed: int, start: int, total: int, devices: Devices
) -> Iterator[Batch]:
    share = schedule.batch // devices.world
    mine = slice(devices.rank * share, (devices.rank + 1) * share)
    keys = (batch[mine] for batch in training_keys(len(index), schedule.batch, start, total, seed))
    pin = devices.device.type == "cuda"
    return load_batches(index, task.transform, keys, seed=seed, workers=devices.workers, pin=pin)


class Training:
    """A task with what changes its weights.

    Args:
        task: moved to the device, and into training mode.
        schedule: optimiser, precision, accumulation.
        seed: of augmentation and dropout.
        devices: where.
        checkpoint: learns of signals that other processes were sent.
    """

    def __init__(self, task: Task, schedule: Schedule, seed: int, devices: Devices, checkpoint: Checkpoint):
        self.task, self.schedule, self.seed, self.devices = task, schedule, seed, devices
        task.to(devices.device)
        if devices.device.type == "cuda":
            task.to(memory_format=torch.channels_last)
        task.train()
        if schedule.sync_bn and devices.world > 1:
            synchronise_norms(task)
        if schedule.compile:
            task.compile()
        self.optimiser = build_optimiser(task, schedule)
        self.scaler = torch.amp.GradScaler(devices.device.type, enabled=schedule.precision == "float16")
        self.ranks = Ranks(task, devices.world, checkpoint) if devices.world > 1 else None

    def step(self, batch: Batch, step: int, lr: float) -> dict[str, float]:
        """The update of global step `step` from this process's share of its batch; mean values of the whole batch."""
        set_lr(self.optimiser, lr)
        torch.manual_seed(seed_of(self.seed, "step", step, *([self.devices.rank] if self.devices.rank else [])))
        return update(self.task, batch, self.optimiser, self.schedule, self.seed, self.devices, self.scaler, self.ranks)

    def state(self) -> dict[str, Any]:
        """What a restart needs, beside the step."""
        scaler = {"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}
        return {"task": self.task.state_dict(), "optimiser": self.optimiser.state_dict(), **scaler}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.task.load_state_dict(state["task"])
        self.optimiser.load_state_dict(state["optimiser"])
        if "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])

    def close(self) -> None:
        """Leave the task as an ordinary module."""
        if self.ranks:
            self.ranks.close()


def update(
    task: Task,
    batch: Batch,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    seed: int,
    devices: Devices,
    scaler: torch.amp.GradScaler | None = None,
    ranks: Ranks | None = None,
) -> dict[str, float]:
    """One update from one batch (with `ranks`: from all their shares), accumulated over micro-batches.

    Returns:
        Mean values of the batch.
    """
    scaler = scaler or torch.amp.GradScaler(devices.device.type, enabled=False)
    optimiser.zero_grad(set_to_none=True)
    values: dict[str, Tensor] = {}
    parts = batch.split(schedule.micro_batch)
    for place, part in enumerate(parts, start=1):
        with devices.autocast(schedule.precision):
            outputs = task(part, part.draws(seed))
        share = len(part) / len(batch)
        if ranks and place == len(parts):
            ranks.expect()
        scaler.scale(outputs["loss"] * share).backward()
        for name, value in outputs.items():
            values[name] = values.get(name, torch.zeros((), device=value.device)) + value.detach().float() * share
    means = torch.stack(list(values.values()))
    if ranks:
        ranks.collect()
        means = ranks.agree(means)
    if schedule.clip:
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(task.parameters(), schedule.clip)
    scaler.step(optimiser)
    scaler.update()
    return dict(zip(values, means.tolist(), strict=True))


def _check_share(schedule: Schedule, world: int) -> None:
    """Refuse a batch that does not divide: every process has as many pictures, in pairs and in whole micro-batches."""
    share, micro = schedule.batch // world, schedule.micro_batch
    whole = schedule.batch % world == 0 and not (micro and share > micro and share % micro)
    if world > 1 and (not whole or share % 2):
        passes = f" in passes of {micro}" if micro else ""
        raise TrainingError(
            f"A batch of {schedule.batch} pictures{passes} cannot be shared by {world} devices, each with the same even"
            " number; change the number of devices (--devices), batch or micro_batch."
        )


def _check_alike(folder: Path, start: int, devices: Devices) -> None:
    """Refuse to go on from different checkpoints: a shared file system may show an old one for a while."""
    starts = devices.gathered(start)
    if len(set(starts)) > 1:
        raise TrainingError(
            f"{folder}: the processes see checkpoints of different steps ({', '.join(map(str, starts))}); this folder "
            "must be on a file system that all of them share; run the same command again."
        )


@torch.no_grad()
def measure(task: Task, heldout: Index, schedule: Schedule, *, seed: int, devices: Devices) -> dict[str, float]:
    """Mean values of the task on held-out pictures, as heldout_*; the same draws each time."""
    step = max(1, -(-len(heldout) // HELDOUT_PICTURES))
    ids = list(range(0, len(heldout), step))
    if len(ids) % 2:  # tasks that take pictures in pairs
        ids = ids[:-1] or ids
    keys = islice(sequential_keys(ids, schedule.micro_batch or schedule.batch), devices.rank, None, devices.world)
    was = task.training
    task.eval()
    sums: dict[str, float] = {}
    total: dict[str, float] = {}
    for batch in load_batches(heldout, task.heldout_transform, keys, seed=seed, workers=devices.workers):
        batch = batch.to(devices.device)
        with devices.autocast(schedule.precision):
            outputs = task(batch, batch.draws(seed_of(seed, "heldout")))
        for name, value in outputs.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
    task.train(was)
    for other in devices.gathered(sums):
        total |= {name: total.get(name, 0.0) + value for name, value in other.items()}
    return {f"heldout_{name}": value / len(ids) for name, value in total.items()}


def build_optimiser(task: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """The optimiser of a schedule; biases and norms may have a learning rate and a decay of their own."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in task.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = schedule.bias_lr if name.endswith("bias") else 1.0
        decay = 0.0 if parameter.ndim < 2 and not schedule.norm_and_bias_decay else schedule.weight_decay
        groups.setdefault((factor, decay), []).append(parameter)
    settings = [
        {"params": parameters, "weight_decay": decay, "factor": factor}
        for (factor, decay), parameters in groups.items()
    ]
    fused = next(task.parameters()).is_cuda or None  # one kernel a step; None: as torch does it on a CPU
    if schedule.optimiser == "sgd":
        return torch.optim.SGD(
            settings, lr=schedule.lr, momentum=schedule.momentum, nesterov=schedule.nesterov, fused=fused
        )
    if schedule.optimiser == "rmsprop":
        return torch.optim.RMSprop(settings, lr=schedule.lr, alpha=0.9, eps=1e-3, momentum=schedule.momentum)
    kind = torch.optim.Adam if schedule.optimiser == "adam" else torch.optim.AdamW
    return kind(settings, lr=schedule.lr, betas=(schedule.momentum, 0.999), fused=fused)


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of this step, times each group's factor."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["factor"]


def _report_not_finite(task: Task, batch: Batch, step: int, lr: float, folder: Path, devices: Devices) -> None:
    bad = [name for name, p in task.named_parameters() if not torch.isfinite(p).all()]
    file = folder / (f"not_finite-{devices.rank}.pt" if devices.world > 1 else "not_finite.pt")
    torch.save({"ids": batch.ids.cpu(), "pictures": batch.pictures.cpu()}, file)
    where = f"; not finite: {', '.join(bad[:3])}" if bad else ""
    raise TrainingError(
        f"The loss is not finite at step {step} (learning rate {lr:g}{where}); lower the learning rate or warm up. "
        f"The batch is in {folder / 'not_finite-*.pt' if devices.world > 1 else file}."
    )
