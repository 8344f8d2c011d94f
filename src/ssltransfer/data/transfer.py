"""Small tensors on the device, without waiting for it.

A copy from ordinary host memory, such as `torch.tensor(..., device=...)`, waits until the GPU has done all its work.
"""

from functools import cache

import torch
from torch import Tensor


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; the copy from the CPU to a GPU is asynchronous."""
    return x if x.device.type == device.type else x.pin_memory().to(device, non_blocking=True)


@cache
def constant(values: tuple[float | tuple[float, ...], ...], device: torch.device) -> Tensor:
    """Numbers as a tensor on a device, copied once. Not to be changed in place."""
    with torch.inference_mode(False):
        return torch.tensor(values).to(device)
