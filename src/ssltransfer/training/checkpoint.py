"""Checkpoints: periodic, complete, and on signals."""

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
from ssltransfer.logs import logger

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
VERSION = 3  # of the format of states; checkpoints of other versions are ignored


class Interrupted(SystemExit):
    """The job received a signal to end (time limit, scancel, Ctrl-C, closed terminal) and has saved its work."""


class Checkpoint:
    """A file from which an interrupted job resumes.

    It is written every SSLTRANSFER_CHECKPOINT_SECONDS (300) seconds, or every SSLTRANSFER_CHECKPOINT_STEPS steps, and
    immediately after a signal. No more than that interval is ever computed twice.

    Within `with checkpoint:`, SIGTERM, SIGINT, SIGUSR1 and SIGHUP (unless `nohup` ignores it) make the job save a
    checkpoint and end. Afterwards the former signal handlers are restored, and a signal that was not handled in time is
    raised again.

    With several processes the first one writes. A signal takes effect when all processes have been notified: the loop
    sets `signal` in each.

    Args:
        file: path.
        rank, world: rank of this process, and number of processes.

    Attributes:
        received_signal: signal that this process received.
        signal: signal that any process received.
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
        """The last state, or None without a complete checkpoint."""
        try:
            state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # torch's error for an incomplete archive
                raise
            logger.warning(f"{self.file}: incomplete checkpoint ({error}); starting from scratch.")
            return None
        if state.get("version") != VERSION:
            logger.warning(f"{self.file}: written by another version of ssltransfer; starting from scratch.")
            return None
        return state

    def __enter__(self) -> Self:
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
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
        """Whether to save the state after `step` steps."""
        if self.signal is not None:
            return True
        if self._steps:
            return step % self._steps == 0
        return time.monotonic() - self._last >= self._seconds

    def save(self, state: dict[str, Any], step: int) -> None:
        """Write the state after `step` steps.

        Raises:
            Interrupted: the job received a signal. The state is on disk.
        """
        if self._rank == 0:
            with atomic_write(self.file) as beside:
                torch.save(state | {"version": VERSION}, beside)
        self._last = time.monotonic()
        if self.signal is not None:
            if self._world > 1:
                dist.barrier()  # a process that ends would end the others too
            name = signal.Signals(self.signal).name
            logger.info(f"{name}: saved after step {step}; run the same command again to resume.")
            raise Interrupted(128 + self.signal)
