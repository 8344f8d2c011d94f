"""Makes Python processes with this folder on PYTHONPATH resemble those of macOS.

Functions that only Linux has are removed, the package finds no /proc, /sys and /dev/shm, and processes are spawned.
Packages in C still use them.
"""

import multiprocessing
import os
import signal
import sys
from typing import Any

for module, names in ((os, ("sched_getaffinity", "posix_fadvise")), (signal, ("sigwaitinfo", "sigtimedwait"))):
    for name in names:
        delattr(module, name)

multiprocessing.set_start_method("spawn")


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not str(arguments[0]).startswith(("/proc", "/sys", "/dev/shm")):
        return
    frame = sys._getframe(1)
    while frame is not None and "psutil" not in frame.f_code.co_filename:
        if "/src/ssltransfer/" in frame.f_code.co_filename:
            raise FileNotFoundError(2, "No such file or directory", str(arguments[0]))
        frame = frame.f_back  # type: ignore[assignment]


sys.addaudithook(_refuse)
