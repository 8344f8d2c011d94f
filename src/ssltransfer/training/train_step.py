"""What changes weights: gradients of a batch, the optimizer's step, and several tasks that share a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import seed_of
from ssltransfer.training.checkpoint import Checkpoint
from ssltransfer.training.ddp import GradientReducer
from ssltransfer.training.devices import Devices
from ssltransfer.training.multi_task import TaskRun, check_share
from ssltransfer.training.sync_bn import convert_sync_bn
from ssltransfer.training.task import Task
from ssltransfer.training.task_parallel import TaskParallel


class Trainer:
    """Members with what changes their weights: an optimizer each, over all that a run's loss reaches.

    Args:
        runs: their tasks are moved to the device, and into training mode.
        devices: where.
        checkpoint: learns of signals that other processes were sent.
        synchronous: a round holds a turn of every run. Where the processes can be divided among the runs, each takes
            part in those of one alone.

    Attributes:
        parts: (rank, number) of this process among those that share a run's batches, for each run; None where it
            takes no part in them.
    """

    def __init__(self, runs: Sequence[TaskRun], devices: Devices, checkpoint: Checkpoint, *, synchronous: bool = False):
        self.runs, self.devices = runs, devices
        divided = synchronous and devices.world > 1 and devices.world % len(runs) == 0
        for run in runs:
            check_share(run.schedule, devices.world // len(runs) if divided else devices.world)
        for run in runs:
            _prepare(run, devices)
        self.updates = [Update(run.task, run.schedule, run.seed, devices) for run in runs]
        self.groups: TaskParallel | None = None
        self.ranks: list[GradientReducer] = []
        self.parts: list[tuple[int, int] | None] = [(devices.rank, devices.world)] * len(runs)
        if divided:
            self.groups = TaskParallel([run.task for run in runs], devices, checkpoint)
            self.parts = [self.groups.part if place == self.groups.mine else None for place in range(len(runs))]
        elif devices.world > 1:
            self.ranks = [GradientReducer(run.task, devices.world, checkpoint) for run in runs]

    def round(self, batches: dict[int, Batch], turns: Sequence[int], step: int) -> list[dict[str, float]]:
        """The updates of global steps step, step + 1, ..., one for each turn.

        All gradients are taken at the weights that were there before; then the updates follow one another.

        Args:
            batches: this process's shares, of the runs whose turn it is and in which it takes part.
            turns: runs.
            step: of the first of them.

        Returns:
            Mean values of each whole batch.
        """
        found: dict[int, dict[str, float]] = {}
        held: dict[int, list[Tensor | None]] = {}
        for place, turn in enumerate(turns):
            if turn in batches:
                part = self.parts[turn]
                rank = [part[0]] if part and part[0] else []
                torch.manual_seed(seed_of(self.runs[0].seed, "step", step + place, *rank))
                update = self.updates[turn]
                found[turn] = update.gradients(batches[turn], self.ranks[turn] if self.ranks else None)
                if len(turns) > 1:
                    held[turn] = update.pop_grads()
        if self.groups:
            found = self.groups.all_reduce_metrics(found)
        for place, turn in enumerate(turns):
            update, run = self.updates[turn], self.runs[turn]
            if len(turns) > 1:
                update.set_grads(self.groups.gradients(turn, held.get(turn)) if self.groups else held[turn])
            set_lr(update.optimizer, run.schedule.lr_at(step + place, len(run.index)))
            update.apply()
        return [found[turn] for turn in turns]

    def state(self) -> dict[str, Any]:
        """What a restart needs, beside the step."""
        return {"tasks": [update.state() for update in self.updates]}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for update, one in zip(self.updates, state["tasks"], strict=True):
            update.load(one)
        if self.groups:
            self.groups.snapshot_bn_stats()

    def close(self) -> None:
        """Leave the tasks as ordinary modules."""
        for ranks in self.ranks:
            ranks.close()


def _prepare(run: TaskRun, devices: Devices) -> None:
    task, schedule = run.task, run.schedule
    task.to(devices.device)
    if devices.device.type == "cuda":
        task.to(memory_format=torch.channels_last)
    task.train()
    if schedule.sync_bn and devices.world > 1:
        convert_sync_bn(task)
    if schedule.compile:
        task.compile()


class Update:
    """One task with its optimizer.

    Args:
        task: on its device.
        schedule: optimizer, precision, accumulation.
        seed: of augmentation.
        devices: where.
        optimizer: default: the schedule's.
    """

    def __init__(
        self,
        task: Task,
        schedule: Schedule,
        seed: int,
        devices: Devices,
        optimizer: torch.optim.Optimizer | None = None,
    ):
        self.task, self.schedule, self.seed, self.devices = task, schedule, seed, devices
        self.optimizer = optimizer or build_optimizer(task, schedule)
        self.scaler = torch.amp.GradScaler(devices.device.type, enabled=schedule.precision == "float16")
        self.scaler.scale(torch.zeros((), device=devices.device))  # its state is there from the start

    def gradients(self, batch: Batch, ranks: GradientReducer | None = None) -> dict[str, float]:
        """Gradients of a batch (with `ranks`: of all their shares), accumulated over micro-batches.

        Returns:
            Mean values of the batch.
        """
        self.optimizer.zero_grad(set_to_none=True)
        values: dict[str, Tensor] = {}
        parts = batch.split(self.schedule.micro_batch_size)
        for place, part in enumerate(parts, start=1):
            with self.devices.autocast(self.schedule.precision):
                outputs = self.task(part, part.rng(self.seed))
            share = len(part) / len(batch)
            if ranks and place == len(parts):
                ranks.prepare_backward()
            self.scaler.scale(outputs["loss"] * share).backward()
            for name, value in outputs.items():
                values[name] = values.get(name, torch.zeros((), device=value.device)) + value.detach().float() * share
        means = torch.stack(list(values.values()))
        if ranks:
            ranks.wait_allreduce()
            means = ranks.all_reduce_metrics(means)
        return dict(zip(values, means.tolist(), strict=True))

    def pop_grads(self) -> list[Tensor | None]:
        """The gradients, which the parameters then have no more."""
        gradients = [parameter.grad for parameter in self.task.parameters()]
        self.optimizer.zero_grad(set_to_none=True)
        return gradients

    def set_grads(self, gradients: Sequence[Tensor | None]) -> None:
        """Give the parameters these gradients."""
        for parameter, gradient in zip(self.task.parameters(), gradients, strict=True):
            parameter.grad = gradient

    def apply(self) -> None:
        """The optimizer's step."""
        if self.schedule.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.task.parameters(), self.schedule.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def state(self) -> dict[str, Any]:
        """What a restart needs."""
        scaler = {"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}
        return {"task": self.task.state_dict(), "optimizer": self.optimizer.state_dict(), **scaler}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        if "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])


def update(
    task: Task, batch: Batch, optimizer: torch.optim.Optimizer, schedule: Schedule, seed: int, devices: Devices
) -> dict[str, float]:
    """One update from one batch, accumulated over micro-batches; mean values of the batch."""
    one = Update(task, schedule, seed, devices, optimizer)
    values = one.gradients(batch)
    one.apply()
    return values


def build_optimizer(task: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """The optimizer of a schedule; biases and norms may have a learning rate and a decay of their own."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in task.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = schedule.bias_lr_mult if name.endswith("bias") else 1.0
        decay = 0.0 if parameter.ndim < 2 and not schedule.decay_norm_and_bias else schedule.weight_decay
        groups.setdefault((factor, decay), []).append(parameter)
    settings = [
        {"params": parameters, "weight_decay": decay, "factor": factor}
        for (factor, decay), parameters in groups.items()
    ]
    fused = next(task.parameters()).is_cuda or None  # one kernel a step; None: as torch does it on a CPU
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(
            settings, lr=schedule.lr, momentum=schedule.momentum, nesterov=schedule.nesterov, fused=fused
        )
    if schedule.optimizer == "rmsprop":
        return torch.optim.RMSprop(settings, lr=schedule.lr, alpha=0.9, eps=1e-3, momentum=schedule.momentum)
    kind = torch.optim.Adam if schedule.optimizer == "adam" else torch.optim.AdamW
    return kind(settings, lr=schedule.lr, betas=(schedule.momentum, 0.999), fused=fused)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of this step, times each group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
