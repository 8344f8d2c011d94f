"""Cores and memory of a process, and processes that end with the process that started them."""

import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from threading import Thread

import psutil

POLL_SECONDS = 0.2
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_USERS_OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def available_cores() -> int:
    """Number of CPU cores that this process may use; on systems without affinity (macOS) all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory. Other C libraries, and a user's own settings in the environment, stay as they are.

    By default glibc returns large blocks to the kernel, which gives new ones and fills them with zeros: for every
    activation of every batch (docs/performance.md, "Memory of activations").
    """
    if any(name in os.environ for name in _USERS_OWN):
        return
    with contextlib.suppress(AttributeError):  # musl and macOS have no such function
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def on_exit_of(pid: int, action: Callable[[], object]) -> None:
    """Call `action` in a thread as soon as the process `pid` has ended, however it ended."""

    def wait() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            # `Process.wait` would wait for its parent to collect it, which may itself wait for our output to end.
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(POLL_SECONDS)
        action()

    Thread(target=wait, daemon=True).start()
