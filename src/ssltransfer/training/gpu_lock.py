"""Which GPUs of a workstation a job uses: one lock a GPU, held as long as the process lives."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ssltransfer.errors import UserError

POLL_SECONDS = 0.5
_held: list[IO[str]] = []  # an open file is a lock; the kernel frees it however the process ends


class DeviceError(UserError):
    """The devices that were asked for are not there: one clear sentence."""


def set_visible_gpus(count: int) -> None:
    """Choose `count` free GPUs by setting CUDA_VISIBLE_DEVICES, before CUDA is initialized.

    Nothing is chosen where a choice was made already (by CUDA_VISIBLE_DEVICES or by Slurm) or where there is no GPU.

    Raises:
        DeviceError: the machine has fewer.
    """
    if "CUDA_VISIBLE_DEVICES" in os.environ or "SLURM_JOB_ID" in os.environ:
        return
    import torch

    found = torch.cuda.device_count()  # asks the driver's management library, which initializes nothing
    if found:
        folder = Path(tempfile.gettempdir()) / f"ssltransfer-{os.getuid()}"
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(
            acquire_gpus([str(number) for number in range(found)], count, folder)
        )


def acquire_gpus(ids: Sequence[str], count: int, folder: Path) -> list[str]:
    """Lock `count` of the GPUs `ids`, waiting until they are free; returns which, in the order of `ids`.

    Jobs wait in one queue, so that one that needs several GPUs is not overtaken for ever by those that need one, and
    two that need several never hold half each.

    Args:
        ids: all GPUs.
        count: how many.
        folder: of the lock files; shared by the jobs that share the GPUs.

    Raises:
        DeviceError: there are not that many.
    """
    if count > len(ids):
        raise DeviceError(f"{count} GPUs are asked for, but this machine has {len(ids)}; ask for fewer (--devices).")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = False
    with (folder / "queue.lock").open("a") as queue:
        began = time.monotonic()
        # Jobs that start together pass through here in a moment, which is not worth a word.
        while not (first := _lock(queue)) and time.monotonic() - began < POLL_SECONDS:
            time.sleep(POLL_SECONDS / 20)
        if not first:
            said = _say_waiting(count, len(ids))
            fcntl.flock(queue, fcntl.LOCK_EX)
        taken: dict[str, IO[str]] = {}
        while True:
            for number in ids:
                if len(taken) < count and number not in taken and (file := _locked(folder / f"gpu-{number}.lock")):
                    taken[number] = file
            if len(taken) == count:
                break
            said = said or _say_waiting(count, len(ids))
            time.sleep(POLL_SECONDS)
    _held.extend(taken.values())
    return [number for number in ids if number in taken]


def _locked(path: Path) -> IO[str] | None:
    file = path.open("a")
    if _lock(file):
        return file
    file.close()
    return None


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _say_waiting(count: int, there: int) -> bool:
    print(f"Waiting for {count} of {there} GPUs: other jobs of yours use them.", flush=True)
    return True
