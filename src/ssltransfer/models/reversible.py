"""A row of units that can be inverted, and a backward pass that keeps nothing but the end of the row."""

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
    end of the row is kept, however long it is, and F is computed once more for each unit. Statistics of batch
    norms are updated in the forward pass alone. The streams stay in float32 under autocast: what is subtracted must be
    what was added. F must not draw random numbers.

    Args:
        branches: F of each unit, (B, C, H, W) -> the same shape.
        grad_checkpointing: see above; without gradients it changes nothing.
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
            learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
            if learned or x.requires_grad:
                found: Tensor = _Recomputed.apply(self, x, *learned)
                return found
        return self.run(x)

    def run(self, x: Tensor) -> Tensor:
        """The units one after the other."""
        x1, x2 = x.chunk(2, dim=1)
        for branch in self.branches():
            x1, x2 = x2, x1 + branch(x2)
        return torch.cat([x1, x2], dim=1)

    @torch.no_grad()
    def inverse(self, y: Tensor) -> Tensor:
        """What `forward` made this of: exactly, but for rounding, where batch norms are in evaluation mode."""
        y1, y2 = y.chunk(2, dim=1)
        for branch in reversed(self.branches()):
            y1, y2 = y2 - branch(y1), y1
        return torch.cat([y1, y2], dim=1)


class _Recomputed(torch.autograd.Function):
    """`Reversible.run`, of which the backward pass keeps the result alone."""

    @staticmethod
    def forward(ctx: Any, block: Reversible, x: Tensor, *learned: Tensor) -> Tensor:
        # The cache of autocast would hand out weights that were cast here, without a way back to them.
        kind = x.device.type
        ctx.block, ctx.learned = block, learned
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
        places = {parameter: place for place, parameter in enumerate(ctx.learned)}
        found: list[Tensor | None] = [None] * len(places)
        for branch in reversed(ctx.block.branches()):
            mine = [parameter for parameter in branch.parameters() if parameter in places]
            x2 = y1.detach().requires_grad_()
            with (
                torch.enable_grad(),
                _statistics_kept(branch),
                torch.autocast(y.device.type, cache_enabled=False, **ctx.autocast),
            ):
                added = branch(x2)
            into, *gradients = torch.autograd.grad(added, [x2, *mine], g2.to(added.dtype))
            for parameter, each in zip(mine, gradients, strict=True):
                found[places[parameter]] = each
            y1, y2 = y2 - added.detach(), y1
            g1, g2 = g2, g1 + into
        return None, torch.cat([g1, g2], dim=1), *found


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norms use the batch they see, and do not remember it."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
