"""Device selection."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssltransfer.config.schedule import Precision
from ssltransfer.processes import available_cores, keep_freed_memory
from ssltransfer.training.gpu_lock import DeviceError, gpus_hidden

TIMEOUT = timedelta(minutes=30)  # the other processes wait while one works alone, for example to write a checkpoint
# Shares of the extraction take unequal times. NCCL would end the job after TIMEOUT, hence gloo for such waits.
HOST_TIMEOUT = timedelta(days=1)
_host_group: dist.ProcessGroup | None = None  # None: the default group

T = TypeVar("T")


@dataclass(frozen=True)
class Devices:
    """The device of a process, and its place among the processes of the job.

    Attributes:
        device: of the network.
        workers: number of loader processes.
        rank, world: rank of this process, and number of processes.
    """

    device: torch.device
    workers: int
    rank: int = 0
    world: int = 1

    def __str__(self) -> str:
        if self.cuda:
            name = torch.cuda.get_device_name(self.device)
            memory = torch.cuda.get_device_properties(self.device).total_memory
            plural = "" if self.world == 1 else "s"
            where = f"{self.world} GPU{plural} ({name}, {memory >> 30} GB, {str(self.dtype())[6:]} autocast)"
        else:
            processes = "" if self.world == 1 else f"{self.world} processes, "
            where = f"CPU ({processes}{torch.get_num_threads()} threads, float32)"
        return f"{where}, {self.workers} loader workers{'' if self.world == 1 else ' each'}"

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU, to which batches are copied from page-locked memory."""
        return self.device.type == "cuda"

    @cached_property
    def copies(self) -> torch.cuda.Stream | None:
        """Stream of a GPU for `Batch.to`."""
        return torch.cuda.Stream(self.device) if self.cuda else None

    def dtype(self, precision: Precision = "auto") -> torch.dtype:
        """Data type of matrix products.

        auto: bfloat16 on CUDA, float16 on GPUs before Ampere, where bfloat16 is emulated, and float32 on a CPU, where
        half precision is slower.
        """
        if precision == "auto" and self.cuda:
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        if precision == "auto":
            return torch.float32
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]

    def autocast(self, precision: Precision = "auto") -> AbstractContextManager[object]:
        """Context of mixed precision: matrix products in `dtype(precision)`, sums and weights in float32."""
        dtype = self.dtype(precision)
        return nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype=dtype)

    def all_gather(self, value: T) -> list[T]:
        """The value of every process, by rank; anything that can be pickled."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value, group=_host_group)
        return values

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier(group=_host_group)

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum over all processes of a tensor on the device, in place."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def broadcast(self, module: nn.Module) -> None:
        """Copy the state of a module from the first process: results of GPUs may differ in the last bits."""
        if self.world > 1:
            for value in module.state_dict().values():
                dist.broadcast(value, 0)


def _gpu_number(local: int) -> int:
    """Number of the GPU of the process with this LOCAL_RANK, among those that torch sees."""
    count = torch.cuda.device_count()
    allocated = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    # Without the management library (WSL, Jetson) the allocation had to count the GPUs with CUDA, which does not see a
    # variable that is set afterwards.
    if count > len(allocated) and all(entry.isdigit() for entry in allocated):
        return int(allocated[local % len(allocated)])
    return local % count  # srun may make only one GPU visible to each of its tasks


def plan_devices(threads: int | None = None) -> Devices:
    """Select the CUDA device of this process, or its share of the CPU cores, and join the process group.

    On a CPU, threads and loader workers together take no more than `threads` cores (default: those this process may
    use). The number of threads decides the order of floating-point sums and so the last bits of a result.
    `SSLTRANSFER_WORKERS` sets the number of loader workers. Results do not depend on it. RANK and WORLD_SIZE (set by
    torch's launcher) make this process one of several, which communicate by nccl on CUDA and by gloo on a CPU.

    Raises:
        DeviceError: CUDA_VISIBLE_DEVICES names GPUs that cannot be used.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local, beside = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = max(1, (threads or available_cores()) // beside)
    cuda = torch.cuda.is_available()
    # On a CPU the loader shares the cores with the network. With two or three cores, loading in the process itself,
    # between the steps, is faster than a loader process that takes a core from the network.
    workers = cores if cuda else int(cores >= 4)
    torch.set_num_threads(cores if cuda else cores - workers)
    if not cuda and not gpus_hidden():
        raise DeviceError(
            f"CUDA_VISIBLE_DEVICES is {os.environ['CUDA_VISIBLE_DEVICES']!r}, but torch finds no usable GPU; "
            "check the driver, or unset it to run on the CPU."
        )
    device = torch.device("cpu")
    if not cuda:
        keep_freed_memory()
    else:
        device = torch.device("cuda", _gpu_number(local))
        torch.cuda.set_device(device)
        # Near-ties of k-means and nearest neighbors are decided by true float32 products, whatever a container sets.
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT, device_id=device if cuda else None)
        if cuda:
            global _host_group
            group = dist.new_group(backend="gloo", timeout=HOST_TIMEOUT)
            assert isinstance(group, dist.ProcessGroup)
            _host_group = group
    given = os.environ.get("SSLTRANSFER_WORKERS")
    return Devices(device, int(given) if given else workers, rank, world)
