"""Multi-task training with several processes: all share each batch, or each task has a group of processes."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssltransfer.training.checkpoint import SIGNALS, Checkpoint
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import Task

BUCKET_BYTES = 25 << 20  # gradients sent at once, as in torch's DistributedDataParallel


class TaskParallel:
    """Averages gradients, metrics and batch norm statistics of the tasks over processes.

    With a group of processes per task, process r of w computes task r // (w / tasks). Every process then gets the mean
    gradient of every task and makes every task's optimizer step, in the order of the tasks. So weights and optimizer
    states stay equal to the last bit, and any process can write the checkpoint. One process alone averages nothing.

    torch's DistributedDataParallel cannot do this: two instances on a common backbone would both react to each
    backward pass.

    The tasks have equal weights in all processes. The checkpoint's `received_signal` is exchanged with the other
    processes, and its `signal` is set.

    Attributes:
        part: (rank, number of processes) of this process in its group.
    """

    def __init__(self, tasks: Sequence[Task], devices: Devices, checkpoint: Checkpoint, *, group_per_task: bool):
        self._groups = len(tasks) if group_per_task else 1
        self._size = devices.world // self._groups
        self._group, rank = divmod(devices.rank, self._size)
        self.part = (rank, self._size)
        self._devices, self._checkpoint = devices, checkpoint
        self._parameters = [list(task.parameters()) for task in tasks]
        modules = (module for task in tasks for module in task.modules())
        self._norms = [norm for norm in dict.fromkeys(modules) if isinstance(norm, _BatchNorm) and norm.training]
        self._before = self._bn_stats()

    def computes(self, task: int) -> bool:
        """Whether this process computes the task's gradients."""
        return self._groups == 1 or task == self._group

    def all_reduce_gradients(self, task: int, gradients: list[Tensor | None] | None) -> list[Tensor | None]:
        """The mean gradient over the processes that compute the task, in every process.

        `gradients` are those of this process, one per parameter, if it computes the task.
        """
        if self._devices.world == 1:
            assert gradients is not None
            return gradients
        parameters = self._parameters[task]
        given = gradients or [None] * len(parameters)
        has_gradient = torch.tensor([float(gradient is not None) for gradient in given], device=self._devices.device)
        dist.all_reduce(has_gradient)
        means: list[Tensor | None] = [None] * len(parameters)
        # The exchange is a sum over all processes, to which the other groups add zeros. That costs as much as a sum
        # within the group that is then broadcast.
        for positions in _buckets(parameters, [i for i, count in enumerate(has_gradient.tolist()) if count]):
            flat = torch.cat([_flat(given[i], parameters[i]) for i in positions])
            dist.all_reduce(flat)
            sizes = [parameters[i].numel() for i in positions]
            for i, mean in zip(positions, (flat / self._size).split(sizes), strict=True):
                # In the parameter's memory format, which fused optimizers require.
                means[i] = torch.empty_like(parameters[i]).copy_(mean.view_as(parameters[i]))
        return means

    def all_reduce_metrics(self, values: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
        """Mean values of each task, in one exchange with signals. Averages the batch norm statistics too."""
        if self._devices.world == 1:
            return values
        parts = self._devices.all_gather((values, self._checkpoint.received_signal))
        received = {signal for _, signal in parts}
        self._checkpoint.signal = next((number for number in SIGNALS if number in received), None)
        means: dict[int, dict[str, float]] = {}
        for computed, _ in parts:
            for task, metrics in computed.items():
                mean = means.setdefault(task, dict.fromkeys(metrics, 0.0))
                for name, value in metrics.items():
                    mean[name] += value / self._size
        self._combine_bn_stats()
        return means

    def _bn_stats(self) -> tuple[Tensor, Tensor]:
        """Running means and variances of all norms, float (n,), and how often each one has been updated, int (m,)."""
        flat = [part for norm in self._norms for part in (norm.running_mean, norm.running_var) if part is not None]
        counts = [norm.num_batches_tracked for norm in self._norms if norm.num_batches_tracked is not None]
        empty = torch.zeros(0, device=self._devices.device)
        return torch.cat([*flat, empty]).clone(), torch.stack([*counts]) if counts else empty.long()

    @torch.no_grad()
    def _combine_bn_stats(self) -> None:
        """Running statistics as if the forward passes of the groups had followed one another.

        A pass moves a running value r to (1 - m) r + m s. From r0 a group reached r by k passes of its own. After other
        groups have moved r0 to R, the same passes would have led to r + (1 - m)^k (R - r0).
        """
        if not self._norms:
            return
        before, counts_before = self._before
        after, counts = self._bn_stats()
        all_after = torch.zeros(self._groups, len(after), device=after.device)
        all_passes = torch.zeros(self._groups, len(counts), device=after.device)
        all_after[self._group], all_passes[self._group] = after, (counts - counts_before).float()
        dist.all_reduce(all_after)
        dist.all_reduce(all_passes)
        passes = (all_passes / self._size).round()
        decay = torch.tensor([1 - norm.momentum for norm in self._norms], device=after.device)  # type: ignore[operator]
        sizes = torch.tensor([2 * norm.num_features for norm in self._norms], device=after.device)
        combined = before
        for reached, number in zip(all_after / self._size, passes, strict=True):
            combined = reached + (decay**number).repeat_interleave(sizes) * (combined - before)
        counts = counts_before + passes.sum(0).long()
        parts = iter(combined.split([n for norm in self._norms for n in (norm.num_features,) * 2]))
        for norm, number in zip(self._norms, counts, strict=True):
            norm.running_mean.copy_(next(parts))  # type: ignore[union-attr]
            norm.running_var.copy_(next(parts))  # type: ignore[union-attr]
            norm.num_batches_tracked.copy_(number)  # type: ignore[union-attr]
        self._before = self._bn_stats()


def _flat(gradient: Tensor | None, parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()


def _buckets(parameters: Sequence[nn.Parameter], positions: Sequence[int]) -> list[list[int]]:
    """Positions of neighboring parameters of about BUCKET_BYTES each."""
    buckets: list[list[int]] = []
    room = 0
    for i in positions:
        if room <= 0:
            buckets.append([])
            room = BUCKET_BYTES
        buckets[-1].append(i)
        room -= parameters[i].numel() * parameters[i].element_size()
    return buckets
