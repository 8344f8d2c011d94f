"""Data parallelism: each process computes a part of every batch, and all keep equal weights."""

import contextlib

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ssltransfer.data.loader import Batch
from ssltransfer.data.transfer import to_device
from ssltransfer.training.checkpoint import SIGNALS, Checkpoint
from ssltransfer.training.pending import Pending
from ssltransfer.training.task import Task


class DataParallel:
    """A task in torch's DistributedDataParallel; also averages metrics and batch norm statistics over all processes.

    `find_unused_parameters` serves parameters without a gradient in a step. It also keeps torch from rebuilding the
    buckets of gradients after the first backward pass. So gradients are added in the same order after a restart, and a
    resumed training ends with the same bytes at any number of processes.

    The checkpoint's `received_signal` is exchanged with the other processes, and its `signal` is set.
    """

    def __init__(self, task: Task, checkpoint: Checkpoint):
        self._ddp = DistributedDataParallel(
            _Differentiable(task), find_unused_parameters=True, gradient_as_bucket_view=True
        )
        self._ddp.broadcast_buffers = False  # as an argument it is deprecated, and torch 2.11 lacks its successor
        self._checkpoint = checkpoint
        self._signals: Pending | None = None  # of the last exchange
        self._norms = [module for module in task.modules() if isinstance(module, _BatchNorm)]

    def forward(self, batch: Batch, seed: int, *, reduce: bool) -> dict[str, Tensor]:
        """The task's outputs. The next backward pass averages the accumulated gradients if `reduce`."""
        with contextlib.nullcontext() if reduce else self._ddp.no_sync():
            outputs: dict[str, Tensor] = self._ddp(batch, seed)
        return outputs

    @torch.no_grad()
    def all_reduce_metrics(self, values: Tensor) -> Tensor:
        """Means of the values, float32 (n,), in one exchange with signals and batch norm statistics.

        All processes learn of a signal in the next exchange, so that the GPUs do not wait for it in this one.
        """
        signals = torch.tensor([float(self._checkpoint.received_signal == number) for number in SIGNALS])
        buffers = [
            buffer
            for norm in self._norms
            for buffer in (norm.running_mean, norm.running_var)
            if buffer is not None and norm.training
        ]
        parts = [values, to_device(signals, values.device), *buffers]
        flat = torch.cat(parts)
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        values, signals, *means = flat.split([len(part) for part in parts])
        for buffer, mean in zip(buffers, means, strict=True):
            buffer.copy_(mean)
        if self._signals:
            received = self._signals.read()
            self._checkpoint.signal = next((number for number in SIGNALS if received[number.name]), None)
        self._signals = Pending([number.name for number in SIGNALS], signals)
        return values


class _Differentiable(nn.Module):
    """A task whose loss alone has a gradient, because torch waits for the gradients of all outputs."""

    def __init__(self, task: Task):
        super().__init__()
        self.task = task
        # Always unused: torch would warn on standard error when all parameters are used.
        self.unused = nn.Parameter(torch.zeros((), device=next(task.parameters()).device))

    def forward(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.task(batch, batch.rng(seed))
        return {name: value if name == "loss" else value.detach() for name, value in outputs.items()}
