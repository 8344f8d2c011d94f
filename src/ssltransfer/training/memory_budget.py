"""Host memory that a job may use."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")


def memory_budget() -> int:
    """Bytes that a stage may use for data: SSLTRANSFER_MEMORY_MB, or half of the free memory.

    Free memory is the minimum of the machine's available memory, the remaining memory of the control groups of this
    process (a Slurm job, a container), and the remaining memory below RLIMIT_AS and RLIMIT_DATA.

    Raises:
        ValueError: SSLTRANSFER_MEMORY_MB is not a number.
    """
    given = os.environ.get("SSLTRANSFER_MEMORY_MB")
    if given:
        if not given.isdecimal():
            raise ValueError(f"SSLTRANSFER_MEMORY_MB is {given!r}; give a whole number of megabytes.")
        return int(given) << 20
    free = [psutil.virtual_memory().available, *_left_in_groups(), *_left_in_limits()]
    return max(0, min(free)) // 2


def _left_in_limits() -> Iterator[int]:
    memory = psutil.Process().memory_info()
    used = {resource.RLIMIT_AS: memory.vms, resource.RLIMIT_DATA: getattr(memory, "data", memory.rss)}
    for limit, size in used.items():
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield soft - size


def _left_in_groups() -> Iterator[int]:
    """Control groups of version 2 and 1. A limit may be set on any ancestor, as Slurm sets it on the job."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, used = CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, used = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = root / path.lstrip("/")
        while folder.is_relative_to(root):
            try:
                allowed = (folder / limit).read_text().strip()
                if allowed != "max":
                    yield int(allowed) - int((folder / used).read_text()) + _cache(folder / "memory.stat")
            except (OSError, ValueError):
                pass  # the group is not in this namespace, or has no limit
            folder = folder.parent


def _cache(stat: Path) -> int:
    """Page cache. It counts as used, but the kernel reclaims it on demand."""
    rows = dict(line.split() for line in stat.read_text().splitlines())
    return int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))
