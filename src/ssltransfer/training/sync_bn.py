"""Batch normalization over the whole batch of all processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncedBatchNorm(nn.SyncBatchNorm):
    """Torch's SyncBatchNorm, which is for GPUs alone, and the same on a CPU for equal shares."""

    def forward(self, input: Tensor) -> Tensor:
        """float (B, C, ...) of this process -> the same, normalized by the statistics of all processes."""
        if input.is_cuda or not self.training:
            return super().forward(input)
        dims = [dim for dim in range(input.ndim) if dim != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        x = input.float()
        mean = _Mean.apply(x.mean(dims))
        centerd = x - mean.view(shape)
        variance = _Mean.apply(centerd.square().mean(dims))
        if self.track_running_stats:
            count = dist.get_world_size() * input.numel() // input.shape[1]
            self._remember(mean.detach(), variance.detach(), count)
        found = centerd * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            found = found * self.weight.view(shape) + self.bias.view(shape)
        return found.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)


class _Mean(torch.autograd.Function):
    """Mean over all processes; the gradient of the sum of their losses is the mean of what each one asks for."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _mean(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _mean(gradients[0])


def _mean(value: Tensor) -> Tensor:
    found = value.clone()
    dist.all_reduce(found)
    return found / dist.get_world_size()


def convert_sync_bn(task: nn.Module) -> None:
    """Put synchronized norms in the place of those that learn statistics; frozen ones stay as they are.

    Names of parameters and buffers do not change, so checkpoints and models fit both. A backbone that several tasks share
    is changed once.
    """
    for parent in list(task.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, SyncedBatchNorm) and child.training:
                synced = SyncedBatchNorm(
                    child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
                )
                synced.load_state_dict(child.state_dict())
                setattr(parent, name, synced.to(next(iter(child.state_dict().values())).device))
