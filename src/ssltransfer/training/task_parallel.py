"""Processes divided among tasks that take their gradients side by side: a group of them for each task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ssltransfer.training.checkpoint import SIGNALS, Checkpoint
from ssltransfer.training.ddp import buckets
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import Task


class TaskParallel:
    """Process r of w belongs to task r // (w / tasks).

    A task's gradient is the mean over its group alone, and is then known to all: every process makes every task's
    update, in the order of the tasks, with optimizers that are alike everywhere. So weights and states stay equal to
    the last bit, and any process can write the checkpoint. What is sent is a sum over all in which the others have
    zeros; it costs what a sum within the group and sending it on would.

    Args:
        tasks: alike in all processes.
        devices: of this process.
        checkpoint: knows of a signal that this process was sent, and learns of those that the others were.

    Attributes:
        mine: the task of this process.
        part: (rank, number) of this process in its group.
    """

    def __init__(self, tasks: Sequence[Task], devices: Devices, checkpoint: Checkpoint):
        self.size = devices.world // len(tasks)
        self.mine, rank = divmod(devices.rank, self.size)
        self.part = (rank, self.size)
        self.devices, self.checkpoint = devices, checkpoint
        self._parameters = [list(task.parameters()) for task in tasks]
        modules = (module for task in tasks for module in task.modules())
        self._norms = [norm for norm in dict.fromkeys(modules) if isinstance(norm, _BatchNorm) and norm.training]
        self.snapshot_bn_stats()

    def snapshot_bn_stats(self) -> None:
        """The statistics of norms are common to all now."""
        self._before = self._statistics()

    def gradients(self, task: int, held: list[Tensor | None] | None) -> list[Tensor | None]:
        """The mean over the task's group of the gradients of its parameters.

        Args:
            task: whose.
            held: of this process, where it belongs to the group.
        """
        parameters = self._parameters[task]
        given = held or [None] * len(parameters)
        there = torch.tensor([float(gradient is not None) for gradient in given], device=self.devices.device)
        dist.all_reduce(there)
        found: dict[int, Tensor] = {}
        used = [place for place, number in enumerate(there.tolist()) if number]
        for bucket in buckets([parameters[place] for place in used]):
            places, used = used[: -len(bucket) - 1 : -1], used[: -len(bucket)]  # buckets begin with the last layers
            flat = torch.cat([_flat(given[place], parameters[place]) for place in places])
            dist.all_reduce(flat)
            sizes = [parameter.numel() for parameter in bucket]
            for place, mean in zip(places, (flat / self.size).split(sizes), strict=True):
                found[place] = mean.view_as(parameters[place])
        return [found.get(place) for place in range(len(parameters))]

    def all_reduce_metrics(self, values: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
        """Mean values of every task, in one exchange with signals; the statistics of norms are made common."""
        word = (self.mine, values[self.mine], self.checkpoint.received_signal)
        words = [word] * self.devices.world
        dist.all_gather_object(words, word)
        self.checkpoint.signal = next((n for n in SIGNALS if any(signal == n for _, _, signal in words)), None)
        means: dict[int, dict[str, float]] = {}
        for task, found, _ in words:
            mean = means.setdefault(task, dict.fromkeys(found, 0.0))
            for name, value in found.items():
                mean[name] += value / self.size
        self._combine()
        return means

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Running means and variances of all norms, float (n,), and how often each one has been updated, int (m,)."""
        flat = [part for norm in self._norms for part in (norm.running_mean, norm.running_var) if part is not None]
        counts = [norm.num_batches_tracked for norm in self._norms if norm.num_batches_tracked is not None]
        empty = torch.zeros(0, device=self.devices.device)
        return torch.cat([*flat, empty]).clone(), torch.stack([*counts]) if counts else empty.long()

    @torch.no_grad()
    def _combine(self) -> None:
        """Statistics as if the groups' passes had followed one another.

        A pass moves a running value r to (1 - m) r + m s. From r0 a group came to r with k passes of its own; after
        others have moved r0 to R, they would have led to r + (1 - m)^k (R - r0).
        """
        if not self._norms:
            return
        before, counted = self._before
        after, count = self._statistics()
        groups = self.devices.world // self.size
        all_after = torch.zeros(groups, len(after), device=after.device)
        all_passes = torch.zeros(groups, len(count), device=after.device)
        all_after[self.mine], all_passes[self.mine] = after / self.size, (count - counted).float() / self.size
        dist.all_reduce(all_after)
        dist.all_reduce(all_passes)
        passes = all_passes.round()
        keep = torch.tensor([1 - norm.momentum for norm in self._norms], device=after.device)  # type: ignore[operator]
        sizes = torch.tensor([2 * norm.num_features for norm in self._norms], device=after.device)
        total = before
        for found, number in zip(all_after, passes, strict=True):
            total = found + (keep**number).repeat_interleave(sizes) * (total - before)
        counts = counted + passes.sum(0).long()
        places = iter(total.split([n for norm in self._norms for n in (norm.num_features,) * 2]))
        for norm, number in zip(self._norms, counts, strict=True):
            norm.running_mean.copy_(next(places))  # type: ignore[union-attr]
            norm.running_var.copy_(next(places))  # type: ignore[union-attr]
            norm.num_batches_tracked.copy_(number)  # type: ignore[union-attr]
        self.snapshot_bn_stats()


def _flat(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
