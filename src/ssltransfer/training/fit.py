"""The one loop that trains everything."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
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
    the same bytes as an undisturbed one (on a CPU with the same number of threads).

    Args:
        task: network, head and loss; moved to the device and trained in place.
        index: training pictures.
        schedule: how long and how.
        seed: of order, augmentation and dropout.
        folder: work directory: checkpoint.pt and curve.jsonl lie here.
        devices: where.
        heldout: pictures on which the loss is also measured.

    Raises:
        TrainingError: the loss is not finite, or there is nothing to train on.
        Interrupted: told to end; the work is saved.
    """
    if not len(index):
        raise TrainingError("There are no pictures to train on; check the dataset's left-out list.")
    total = schedule.total_steps(len(index))
    task.to(devices.device)
    optimiser = build_optimiser(task, schedule)
    checkpoint = Checkpoint(folder / "checkpoint.pt")
    curve: list[dict[str, float]] = []
    sums: dict[str, float] = {}
    start = 0
    state = checkpoint.load()
    if state:
        task.load_state_dict(state["task"])
        optimiser.load_state_dict(state["optimiser"])
        start, curve, sums = state["step"], state["curve"], state["sums"]
    checkpoint.listen()
    origin = f"going on after step {start}" if start else "from nothing"
    print(f"{len(index)} pictures, {total} steps of {schedule.batch}, {origin}; {devices}", flush=True)

    every = max(1, total // ROWS)
    measure_every = every * max(1, ROWS // HELDOUT_MEASUREMENTS)
    batches = _batches(task, index, schedule, seed, start, total, devices)
    progress = Progress("train", start, total, schedule.batch)
    task.train()
    for step in range(start, total):
        waiting = time.monotonic()
        batch = next(batches).to(devices.device)
        waited = time.monotonic() - waiting
        lr = schedule.lr_at(step, len(index))
        set_lr(optimiser, lr)
        torch.manual_seed(seed_of(seed, "step", step))
        values = update(task, batch, optimiser, schedule, seed, devices)
        if not math.isfinite(values["loss"]):
            _report_not_finite(task, batch, step, lr, folder)
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
            checkpoint.save(_state(task, optimiser, done, curve, sums), done)
    measured = progress.close()
    if start < total:
        # The state after the last step, so that a job killed while it exports does not train again.
        checkpoint.save(_state(task, optimiser, total, curve, sums), total)
    checkpoint.close()
    write_text(folder / "curve.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in curve))
    return Fitted(curve, measured)


def _batches(
    task: Task, index: Index, schedule: Schedule, seed: int, start: int, total: int, devices: Devices
) -> Iterator[Batch]:
    keys = training_keys(len(index), schedule.batch, start, total, seed)
    pin = devices.device.type == "cuda"
    return load_batches(index, task.transform, keys, seed=seed, workers=devices.workers, pin=pin)


def update(
    task: Task, batch: Batch, optimiser: torch.optim.Optimizer, schedule: Schedule, seed: int, devices: Devices
) -> dict[str, float]:
    """One update from one global batch, accumulated over micro-batches; returns the batch's mean values."""
    optimiser.zero_grad(set_to_none=True)
    values: dict[str, Tensor] = {}
    for part in batch.split(schedule.micro_batch):
        with devices.autocast():
            outputs = task(part, part.draws(seed))
        share = len(part) / len(batch)
        (outputs["loss"] * share).backward()
        for name, value in outputs.items():
            values[name] = values.get(name, torch.zeros((), device=value.device)) + value.detach().float() * share
    if schedule.clip:
        nn.utils.clip_grad_norm_(task.parameters(), schedule.clip)
    optimiser.step()
    names = list(values)
    return dict(zip(names, torch.stack([values[name] for name in names]).tolist(), strict=True))


@torch.no_grad()
def measure(task: Task, heldout: Index, schedule: Schedule, *, seed: int, devices: Devices) -> dict[str, float]:
    """Mean values of the task on held-out pictures, as heldout_*; the same draws each time."""
    step = max(1, -(-len(heldout) // HELDOUT_PICTURES))
    ids = list(range(0, len(heldout), step))
    if len(ids) % 2:  # tasks that take pictures in pairs
        ids = ids[:-1] or ids
    keys = sequential_keys(ids, schedule.micro_batch or schedule.batch)
    was = task.training
    task.eval()
    sums: dict[str, float] = {}
    for batch in load_batches(heldout, task.heldout_transform, keys, seed=seed, workers=devices.workers):
        batch = batch.to(devices.device)
        with devices.autocast():
            outputs = task(batch, batch.draws(seed_of(seed, "heldout")))
        for name, value in outputs.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
    task.train(was)
    return {f"heldout_{name}": value / len(ids) for name, value in sums.items()}


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
    if schedule.optimiser == "sgd":
        return torch.optim.SGD(settings, lr=schedule.lr, momentum=schedule.momentum, nesterov=schedule.nesterov)
    if schedule.optimiser == "rmsprop":
        return torch.optim.RMSprop(settings, lr=schedule.lr, alpha=0.9, eps=1e-3, momentum=schedule.momentum)
    kind = torch.optim.Adam if schedule.optimiser == "adam" else torch.optim.AdamW
    return kind(settings, lr=schedule.lr, betas=(schedule.momentum, 0.999))


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of this step, times each group's factor."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["factor"]


def _state(
    task: Task, optimiser: torch.optim.Optimizer, step: int, curve: list[dict[str, float]], sums: dict[str, float]
) -> dict[str, Any]:
    return {
        "task": task.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "curve": curve,
        "sums": sums,
    }


def _report_not_finite(task: Task, batch: Batch, step: int, lr: float, folder: Path) -> None:
    bad = [name for name, p in task.named_parameters() if not torch.isfinite(p).all()]
    torch.save({"ids": batch.ids.cpu(), "pictures": batch.pictures.cpu()}, folder / "not_finite.pt")
    where = f"; not finite: {', '.join(bad[:3])}" if bad else ""
    raise TrainingError(
        f"The loss is not finite at step {step} (learning rate {lr:g}{where}); lower the learning rate or warm up. "
        f"The batch is in {folder / 'not_finite.pt'}."
    )
