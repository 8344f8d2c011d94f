"""A sequence of invertible units, whose backward pass stores only the output of the last one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


class Reversible(nn.Sequential):
    """Units (x1, x2) -> (x2, x1 + F(x2)) on the two halves of the channels (Gomez et al. 2017; protocols 2.4).

    With `grad_checkpointing` the backward pass recovers each unit's input from its output, x1 = y2 - F(y1). Only the
    output of the last unit is stored, and F is computed once more for each unit. Statistics of batch
    norms are updated only in the forward pass. Under autocast the streams stay in float32, so that the same value
    is subtracted that was added. F must not be random.

    Args:
        branches: F of each unit, (B, C, H, W) -> the same shape.
        grad_checkpointing: see above; no effect without gradients.
    """

    def __init__(self, branches: Sequence[nn.Sequential], *, grad_checkpointing: bool = False):
        super().__init__(*branches)
        self.grad_checkpointing = grad_checkpointing

    def branches(self) -> list[nn.Sequential]:
        """F of each unit, in order."""
        return [part for part in self if isinstance(part, nn.Sequential)]

    def forward(self, x: Tensor) -> Tensor:
        """float (B, 2C, H, W) -> the same shape, at least float32."""
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        if self.grad_checkpointing and torch.is_grad_enabled():
            parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
            if parameters or x.requires_grad:
                y: Tensor = _Recomputed.apply(self, x, *parameters)
                return y
        return self.run(x)

    def run(self, x: Tensor) -> Tensor:
        """The units one after the other."""
        x1, x2 = x.chunk(2, dim=1)
        for branch in self.branches():
            x1, x2 = x2, x1 + branch(x2)
        return torch.cat([x1, x2], dim=1)

    @torch.no_grad()
    def inverse(self, y: Tensor) -> Tensor:
        """The input of `forward` for this output, up to rounding, if batch norms are in evaluation mode."""
        y1, y2 = y.chunk(2, dim=1)
        for branch in reversed(self.branches()):
            y1, y2 = y2 - branch(y1), y1
        return torch.cat([y1, y2], dim=1)


class _Recomputed(torch.autograd.Function):
    """`Reversible.run`, which stores only its output for the backward pass."""

    @staticmethod
    def forward(ctx: Any, block: Reversible, x: Tensor, *parameters: Tensor) -> Tensor:
        # The cache of autocast would return weights that were cast without a gradient.
        kind = x.device.type
        ctx.block, ctx.parameters = block, parameters
        ctx.autocast = {"enabled": torch.is_autocast_enabled(kind), "dtype": torch.get_autocast_dtype(kind)}
        with torch.autocast(kind, cache_enabled=False, **ctx.autocast):
            y = block.run(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        y1, y2 = y.chunk(2, dim=1)
        g1, g2 = gradient.chunk(2, dim=1)
        positions = {parameter: position for position, parameter in enumerate(ctx.parameters)}
        gradients: list[Tensor | None] = [None] * len(positions)
        for branch in reversed(ctx.block.branches()):
            own = [parameter for parameter in branch.parameters() if parameter in positions]
            x2 = y1.detach().requires_grad_()
            with (
                torch.enable_grad(),
                _frozen_statistics(branch),
                torch.autocast(y.device.type, cache_enabled=False, **ctx.autocast),
            ):
                added = branch(x2)
            g_x2, *g_own = torch.autograd.grad(added, [x2, *own], g2.to(added.dtype))
            for parameter, g in zip(own, g_own, strict=True):
                gradients[positions[parameter]] = g
            y1, y2 = y2 - added.detach(), y1
            g1, g2 = g2, g1 + g_x2
        return None, torch.cat([g1, g2], dim=1), *gradients


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms use batch statistics and do not update the running ones."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
