"""Description of the machine."""

from __future__ import annotations

import platform
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from ssltransfer.artifacts.workdir import environment
from ssltransfer.processes import available_cores

FAISS = "faiss-gpu" if sys.platform == "linux" and platform.machine() == "x86_64" else "faiss-cpu"  # pyproject.toml
BASELINES = (FAISS, "pillow", "scikit-learn", "scipy", "simplejpeg")


def describe(threads: int, rounds: int, *, small: bool) -> dict[str, str | int]:
    """Date, sizes, processor, memory, GPU and versions of what is installed."""
    versions = {}
    for name in BASELINES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "sizes": "small (for testing only)" if small else "full",
        "rounds": rounds,
        "processor": _processor(),
        "cores": available_cores(),
        "threads": threads,
        "memory": f"{psutil.virtual_memory().total >> 30} GB",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        **environment(),
        **versions,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
