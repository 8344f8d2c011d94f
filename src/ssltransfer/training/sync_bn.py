"""Batch normalization over the batch of all processes."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class CpuSyncBatchNorm(_BatchNorm):
    """torch's SyncBatchNorm on a CPU, where torch has none. All processes must have batches of the same size."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # any number of dimensions

    def forward(self, input: Tensor) -> Tensor:
        """float (B, C, ...) of this process -> the same, normalized by the statistics of all processes."""
        if not self.training:
            return super().forward(input)
        dims = [dim for dim in range(input.ndim) if dim != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        x = input.float()
        mean = _Mean.apply(x.mean(dims))
        centered = x - mean.view(shape)
        variance = _Mean.apply(centered.square().mean(dims))
        if self.track_running_stats:
            count = dist.get_world_size() * input.numel() // input.shape[1]
            self._update_running_stats(mean.detach(), variance.detach(), count)
        output = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output.to(input.dtype)

    def _update_running_stats(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        weight = self.momentum if self.momentum is not None else 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance * (count / (count - 1)), weight)


class _Mean(torch.autograd.Function):
    """Mean over all processes. The gradient of the sum of their losses is the mean of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _mean(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _mean(gradients[0])


def _mean(value: Tensor) -> Tensor:
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def convert_sync_bn(task: nn.Module) -> None:
    """Replace the batch norms that are in training mode by synchronized ones, in place. Frozen ones stay as they are.

    Names of parameters and buffers do not change, so checkpoints and exported models fit both. A backbone that several
    tasks share is converted once.
    """
    for parent in list(task.modules()):
        for name, norm in parent.named_children():
            converted = isinstance(norm, nn.SyncBatchNorm | CpuSyncBatchNorm)
            if not isinstance(norm, _BatchNorm) or converted or not norm.training:
                continue
            device = next(iter(norm.state_dict().values())).device
            kind = nn.SyncBatchNorm if device.type == "cuda" else CpuSyncBatchNorm
            synced = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
            synced.load_state_dict(norm.state_dict())
            setattr(parent, name, synced.to(device))
