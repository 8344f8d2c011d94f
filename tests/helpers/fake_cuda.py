"""Tensors of a GPU without values: the rules of its autocast, which differ from those of a CPU, without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from ssltransfer.data.loader import Batch
from ssltransfer.data.transfer import constant
from tests.helpers.pretended_cuda import CUDA


@contextmanager
def fake_cuda(dtype: torch.dtype) -> Iterator[FakeTensorMode]:
    """Autocast of a GPU over tensors without values."""
    constant.cache_clear()
    with ExitStack() as stack:
        # Without a driver torch turns autocast off, and has no page-locked memory.
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", return_value=True))
        stack.enter_context(patch.object(torch.Tensor, "pin_memory", lambda self: self))
        mode = stack.enter_context(FakeTensorMode(shape_env=ShapeEnv()))
        stack.enter_context(torch.autocast("cuda", dtype))
        yield mode
    constant.cache_clear()


def to_cuda(x: torch.Tensor) -> torch.Tensor:
    """A tensor of the same shape, strides and data type on the device."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=CUDA)


def move(module: nn.Module) -> None:
    """`Module.to` keeps the storage of its parameters, which fake ones lack."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(to_cuda(parameter), parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, to_cuda(buffer))


def batch_to_cuda(mode: FakeTensorMode, batch: Batch) -> Batch:
    """Images and targets on the device, without values, as all else."""
    targets = {name: to_cuda(value) for name, value in batch.targets.items()}
    return Batch(to_cuda(batch.images), mode.from_tensor(batch.ids), mode.from_tensor(batch.epochs), targets)
