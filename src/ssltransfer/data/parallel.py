"""Parallel jobs in parts, computed by processes that never outlive the main one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ssltransfer.errors import UserError
from ssltransfer.processes import on_exit_of

T = TypeVar("T", covariant=True)


class Job(Protocol[T]):
    """A job whose parts can be computed in any order; it is pickled for the processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> T:
        """Compute a part.

        Raises:
            ArtifactError: it cannot be computed.
        """


def parallel_imap(job: Job[T], sizes: Iterable[int], *, threads: int, unit: str, preload: str) -> Iterator[T]:
    """Compute the parts of a job in parallel; yields them in order.

    Args:
        job: the parts.
        sizes: number of units in each part, for the progress bar.
        threads: number of processes; 1: this process.
        unit: what the progress bar counts.
        preload: module that the processes need.

    Raises:
        ArtifactError: as a part raises it.
    """
    workers = min(threads, len(job)) if threads > 1 else 0
    # Not forked from this process: a worker that outlives a killed job must not hold its lock.
    context = multiprocessing.get_context("forkserver") if workers else None
    if context:
        context.set_forkserver_preload([preload])
    loader: DataLoader[Any] = DataLoader(
        _Parts(job),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=1 if workers else None,
        multiprocessing_context=context,
        worker_init_fn=_start_worker,
        collate_fn=_identity,
    )
    sizes = list(sizes)
    with tqdm(total=sum(sizes), unit=unit, disable=None, leave=False) as bar, original_errors():
        for size, part in zip(sizes, loader, strict=True):
            bar.update(size)
            yield part


@contextmanager
def original_errors() -> Iterator[None]:
    """Re-raise a user error of a `DataLoader` worker with its original message.

    torch raises an error of the same class whose message is the worker's whole traceback.
    """
    try:
        yield
    except UserError as error:
        kind = type(error)
        _, from_worker, message = str(error).rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")
        if not from_worker:
            raise
        raise kind(message.rstrip("\n")) from None


class _Parts(Dataset[Any]):
    def __init__(self, job: Job[Any]):
        self.job = job

    def __len__(self) -> int:
        return len(self.job)

    def __getitem__(self, number: int) -> Any:
        return self.job[number]


def _start_worker(worker: int) -> None:
    # Ctrl-C reaches every process of a terminal; the main process ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The fork server does not end its workers when the main process is killed.
    main = multiprocessing.parent_process()
    assert main is not None and main.pid is not None
    on_exit_of(main.pid, lambda: os._exit(1))


def _identity(part: Any) -> Any:
    return part
