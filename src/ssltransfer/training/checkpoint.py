"""Checkpoints: when they are written, and that they are whole."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

from ssltransfer.artifacts.files import atomic_write

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
VERSION = 2  # of what states look like; a checkpoint of another one is not read


class Interrupted(SystemExit):
    """The job was told to end (Slurm's time limit, scancel, Ctrl-C) and has saved its work."""


class Checkpoint:
    """A file that a killed job goes on from.

    Written every SSLTRANSFER_CHECKPOINT_SECONDS (300) seconds, or every SSLTRANSFER_CHECKPOINT_STEPS steps where that
    is set, and at once when the job is told to end. No more than that interval is ever computed twice.

    Within `with checkpoint:`, SIGTERM, SIGINT and SIGUSR1 ask for a checkpoint and an end; after it they mean again
    what they meant before, and one that came too late to be answered is sent on.

    Of several processes the first one writes. A signal that one of them was sent counts when all of them know of it:
    the loop sets `signal` in each.

    Attributes:
        received_signal: signal that this process was sent.
        signal: signal that the job was sent.
    """

    def __init__(self, file: Path, *, rank: int = 0, world: int = 1):
        self.file, self._rank, self._world = file, rank, world
        self.received_signal: int | None = None
        self.signal: int | None = None
        self._seconds = float(os.environ.get("SSLTRANSFER_CHECKPOINT_SECONDS", "300"))
        self._steps = int(os.environ.get("SSLTRANSFER_CHECKPOINT_STEPS", "0"))
        self._last = time.monotonic()
        self._before: dict[signal.Signals, Any] = {}

    def load(self) -> dict[str, Any] | None:
        """The last state, or None to start from nothing."""
        try:
            state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # what torch says of a torn archive
                raise
            print(f"{self.file}: not a whole checkpoint ({error}); starting from nothing.", flush=True)
            return None
        if state.get("version") != VERSION:
            print(f"{self.file}: written by another version of ssltransfer; starting from nothing.", flush=True)
            return None
        return state

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
        if self.received_signal is not None and kind is None:
            signal.raise_signal(self.received_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.received_signal = number
        if self._world == 1:
            self.signal = number

    def due(self, step: int) -> bool:
        """Whether the state after `step` steps is to be saved."""
        if self.signal is not None:
            return True
        if self._steps:
            return step % self._steps == 0
        return time.monotonic() - self._last >= self._seconds

    def save(self, state: dict[str, Any], step: int) -> None:
        """Write the state.

        Raises:
            Interrupted: the job was told to end; the state is on disk.
        """
        if self._rank == 0:
            with atomic_write(self.file) as beside:
                torch.save(state | {"version": VERSION}, beside)
        self._last = time.monotonic()
        if self.signal is not None:
            if self._world > 1:
                dist.barrier()  # a process that ends takes the others along
            name = signal.Signals(self.signal).name
            print(f"{name}: saved after step {step}; the same command goes on from there.", flush=True)
            raise Interrupted(128 + self.signal)
