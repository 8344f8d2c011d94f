"""Cores of a process, and processes that end with the process that started them."""

import contextlib
import os
import time
from collections.abc import Callable
from threading import Thread

import psutil

POLL_SECONDS = 0.2


def available_cores() -> int:
    """Number of CPU cores that this process may use; on systems without affinity (macOS) all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
