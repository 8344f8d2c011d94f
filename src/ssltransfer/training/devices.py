"""Where a job computes, said at its start."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Devices:
    """The device plan of a job.

    Attributes:
        device: where the network lives.
        workers: loader processes.
    """

    device: torch.device
    workers: int

    def __str__(self) -> str:
        if self.device.type == "cuda":
            name, memory = (
                torch.cuda.get_device_name(self.device),
                torch.cuda.get_device_properties(self.device).total_memory,
            )
            return f"1 GPU ({name}, {memory >> 30} GB, bfloat16 autocast), {self.workers} loader workers"
        return f"CPU ({torch.get_num_threads()} threads, float32), {self.workers} loader workers"

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 on CUDA, float32 on CPU (where half precision is slower)."""
        if self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()


def plan_devices(threads: int | None = None) -> Devices:
    """The first CUDA device that is visible, or the CPU with this many threads.

    On a CPU the number of threads decides the order of floating-point sums and so the last bits of a result.
    `SSLTRANSFER_WORKERS` sets the number of loader workers; results do not depend on it.
    """
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    cuda = torch.cuda.is_available()
    if os.environ.get("CUDA_VISIBLE_DEVICES") and not cuda:
        raise RuntimeError(
            f"CUDA_VISIBLE_DEVICES is {os.environ['CUDA_VISIBLE_DEVICES']!r}, but torch finds no usable GPU; "
            "check the driver, or unset it to run on the CPU."
        )
    given = os.environ.get("SSLTRANSFER_WORKERS")
    workers = int(given) if given else (threads if cuda else min(1, threads - 1))
    return Devices(torch.device("cuda" if cuda else "cpu"), workers)
