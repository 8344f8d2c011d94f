"""A process that waits for the end of another one."""

from __future__ import annotations

import subprocess
import sys
from threading import Event

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
