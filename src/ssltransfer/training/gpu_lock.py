"""Allocation of a workstation's GPUs to jobs: one lock file per GPU, held until the process ends."""

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ssltransfer.errors import UserError
from ssltransfer.logs import logger

POLL_SECONDS = 0.5
_held: list[FileLock] = []  # keeps the locks until the process ends, when the kernel releases them


class DeviceError(UserError):
    """The requested devices are not available."""


def set_visible_gpus(count: int) -> None:
    """Allocate `count` free GPUs by setting CUDA_VISIBLE_DEVICES, before CUDA is initialized.

    A variable that names more GPUs, MIG slices included, is the list to choose from. Otherwise nothing is done if it is
    set, under Slurm, or without GPUs.

    Raises:
        DeviceError: the machine has fewer.
    """
    slurm_job = os.environ.get("SLURM_JOB_ID")
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        ids = [] if gpus_hidden() else [entry.strip() for entry in given.split(",")]
        if len(ids) <= count:
            return
    elif slurm_job:
        return
    else:
        import torch

        # Queries the driver's management library, which does not initialize CUDA.
        ids = [str(number) for number in range(torch.cuda.device_count())]
    if ids:
        # Slurm numbers the GPUs of each allocation from 0.
        name = f"ssltransfer-{os.getuid()}" + (f"-{slurm_job}" if slurm_job else "")
        acquired = acquire_gpus(ids, count, Path(tempfile.gettempdir()) / name)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(acquired)


def gpus_hidden() -> bool:
    """Whether CUDA_VISIBLE_DEVICES hides all GPUs, or is not set.

    CUDA ignores the first invalid id and all ids after it. So an empty value and -1 at the front hide all GPUs, as does
    Slurm's NoDevFiles.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return not first or first.startswith("-") or first == "NoDevFiles"


def acquire_gpus(ids: Sequence[str], count: int, folder: Path) -> list[str]:
    """Lock `count` of the GPUs `ids`. Waits until that many are free.

    Jobs wait behind one lock. So a job that needs several GPUs is not overtaken forever by jobs that need one, and two
    jobs that need several never hold half each. They share `folder`, which has the lock files.

    Returns:
        The locked GPUs, in the order of `ids`.

    Raises:
        DeviceError: there are not that many.
    """
    if count > len(ids):
        raise DeviceError(f"{count} GPUs were requested, but this machine has {len(ids)}; request fewer (--devices).")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    waiting = f"Waiting for {count} of {len(ids)} GPUs: your other jobs use them."
    logged = False
    queue = FileLock(folder / "queue.lock")
    try:
        queue.acquire(timeout=POLL_SECONDS)  # jobs that start together need no message
    except Timeout:
        logger.info(waiting)
        logged = True
        queue.acquire()
    locks: dict[str, FileLock] = {}
    while True:
        for number in ids:
            if len(locks) < count and number not in locks:
                lock = FileLock(folder / f"gpu-{number.replace('/', '-')}.lock")
                with contextlib.suppress(Timeout):
                    lock.acquire(timeout=0)
                    locks[number] = lock
        if len(locks) == count:
            break
        if not logged:
            logger.info(waiting)
            logged = True
        time.sleep(POLL_SECONDS)
    queue.release()
    _held.extend(locks.values())
    return [number for number in ids if number in locks]
