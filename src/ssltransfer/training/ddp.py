"""Several processes, one training: each takes a share of every batch, and all come to the same weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssltransfer.training.checkpoint import SIGNALS, Checkpoint

BUCKET_BYTES = 25 << 20  # bytes that are sent at once, as in torch's DistributedDataParallel


class GradientReducer:
    """Means over all processes: of gradients while the backward pass still runs, and of what a step has found.

    Torch's DistributedDataParallel buckets gradients in another order from its second step on, so that with three and
    more processes a restart would add in another order and end with other last bits. Here the buckets are fixed.

    Args:
        task: on its device, alike in all processes.
        world: number of processes.
        checkpoint: knows of a signal that this process was sent, and learns of those that the others were.
    """

    def __init__(self, task: nn.Module, world: int, checkpoint: Checkpoint):
        self.world, self.checkpoint = world, checkpoint
        self._buckets = buckets([parameter for parameter in task.parameters() if parameter.requires_grad])
        self._bucket_of = {parameter: place for place, bucket in enumerate(self._buckets) for parameter in bucket}
        norms = [module for module in task.modules() if isinstance(module, _BatchNorm)]
        self._statistics = [
            (norm, buffer) for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None
        ]
        self._hooks = [parameter.register_post_accumulate_grad_hook(self._ready) for parameter in self._bucket_of]
        self._missing: list[int] = []
        self._sent: list[tuple[Tensor, Any]] = []

    def prepare_backward(self) -> None:
        """The next backward pass completes the gradients."""
        self._missing = [len(bucket) for bucket in self._buckets]

    def _ready(self, parameter: Tensor) -> None:
        if not self._missing:  # a micro-batch that is not the last
            return
        self._missing[self._bucket_of[parameter]] -= 1  # type: ignore[index]
        # Always in the same order: the processes must ask for the same sums one after the other.
        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[len(self._sent)]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in bucket])
        self._sent.append((flat, dist.all_reduce(flat, async_op=True)))

    def wait_allreduce(self) -> None:
        """Put the means in the place of this process's gradients."""
        while len(self._sent) < len(self._buckets):  # what had no gradient in this step
            self._send()
        for bucket, (flat, work) in zip(self._buckets, self._sent, strict=True):
            work.wait()
            for parameter, mean in zip(bucket, (flat / self.world).split([p.numel() for p in bucket]), strict=True):
                if parameter.grad is not None:
                    parameter.grad.copy_(mean.view_as(parameter))
        self._sent, self._missing = [], []

    @torch.no_grad()
    def all_reduce_metrics(self, values: Tensor) -> Tensor:
        """Means of the values float32 (n,), in one exchange with signals and the statistics of norms."""
        heard = [float(self.checkpoint.received_signal == number) for number in SIGNALS]
        running = [buffer for norm, buffer in self._statistics if norm.training]
        parts = [values, torch.tensor(heard, device=values.device), *running]
        flat = torch.cat(parts)
        dist.all_reduce(flat)
        values, told, *means = (flat / self.world).split([len(part) for part in parts])
        for buffer, mean in zip(running, means, strict=True):
            buffer.copy_(mean)
        self.checkpoint.signal = next((n for n, share in zip(SIGNALS, told.tolist(), strict=True) if share), None)
        return values

    def close(self) -> None:
        """Take the hooks off the parameters."""
        for hook in self._hooks:
            hook.remove()


def buckets(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Neighbors of about BUCKET_BYTES bytes, those first whose gradients are there first: the last layers."""
    found: list[list[nn.Parameter]] = []
    room = 0
    for parameter in reversed(parameters):
        if room <= 0:
            found.append([])
            room = BUCKET_BYTES
        found[-1].append(parameter)
        room -= parameter.numel() * parameter.element_size()
    return found
