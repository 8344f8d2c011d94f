"""Processes that end with the process that started them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from threading import Thread

import psutil


def on_exit_of(pid: int, action: Callable[[], object]) -> None:
    """Call `action` in a thread as soon as the process `pid` has ended, however it ended."""

    def wait() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already
            psutil.Process(pid).wait()
        action()

    Thread(target=wait, daemon=True).start()
