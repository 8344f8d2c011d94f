"""Memory of a process, and processes that wait for the end of another one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from threading import Event

import pytest

from ssltransfer.processes import on_exit_of


def test_on_exit_of_zombie_process():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ended = Event()
    on_exit_of(process.pid, ended.set)
    assert not ended.wait(0.5)
    process.kill()
    assert ended.wait(30)  # it is still a zombie: `wait` comes later
    process.wait()


def test_on_exit_of_ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    ended = Event()
    on_exit_of(process.pid, ended.set)
    assert ended.wait(30)


FAULTS = """
import ctypes, resource, sys
from ssltransfer.training.devices import plan_devices
if sys.argv[1:]:
    plan_devices(1)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
for turn in range(11):
    block = libc.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
    if not turn:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*arguments: str, **environment: str) -> int:
    """Pages that the kernel gave for ten blocks of 64 MB, each freed before the next, after a first one."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS, *arguments]
    return int(
        subprocess.run(
            command, env=clean | {"CUDA_VISIBLE_DEVICES": ""} | environment, capture_output=True, text=True, check=True
        ).stdout
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this setting")
def test_jobs_on_a_cpu_use_freed_pages_again():
    assert page_faults() > 1000
    assert page_faults("job") < 100
    assert page_faults("job", MALLOC_MMAP_THRESHOLD_="1000000") > 1000  # the user's own setting wins
