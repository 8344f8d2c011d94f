"""Work in parts, each made by one of several processes, that leaves no process behind however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Protocol, TypeVar

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ssltransfer.artifacts.files import ArtifactError

T = TypeVar("T", covariant=True)


class Job(Protocol[T]):
    """What can be made part by part, in any order; it travels to the processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> T:
        """The part, made where it is not there yet.

        Raises:
            ArtifactError: it cannot be made.
        """


def parallel_imap(job: Job[T], sizes: Iterable[int], *, threads: int, unit: str, preload: str) -> Iterator[T]:
    """The parts of a job in order, several of them made at a time.

    Args:
        job: the parts.
        sizes: how many units each is, for the progress bar.
        threads: processes; one is this one.
        unit: what is counted.
        preload: module that the processes need.

    Raises:
        ArtifactError: as a part raises it.
    """
    workers = min(threads, len(job)) if threads > 1 else 0
    # Not forked from here: a worker that outlives a killed job must not hold its lock.
    context = multiprocessing.get_context("forkserver") if workers else None
    if context:
        context.set_forkserver_preload([preload])
    loader: DataLoader[object] = DataLoader(
        _Parts(job),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=1 if workers else None,
        multiprocessing_context=context,
        worker_init_fn=_live_and_die_with_the_job,
        collate_fn=_identity,
    )
    sizes = list(sizes)
    with tqdm(total=sum(sizes), unit=unit, disable=None, leave=False) as bar:
        for size, part in zip(sizes, loader, strict=True):
            if isinstance(part, WorkerError):
                raise ArtifactError(part.sentence)
            bar.update(size)
            yield part


class WorkerError:
    """What a worker could not do."""

    # Workers wrap exceptions in tracebacks; one sentence is wanted.
    def __init__(self, sentence: str):
        self.sentence = sentence


class _Parts(Dataset[object]):
    def __init__(self, job: Job[object]):
        self.job = job

    def __len__(self) -> int:
        return len(self.job)

    def __getitem__(self, number: int) -> object:
        try:
            return self.job[number]
        except ArtifactError as error:
            return WorkerError(str(error))


def _live_and_die_with_the_job(worker: int) -> None:
    # Ctrl-C reaches every process of a terminal; the main process ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A killed main process ends nobody, and the server that workers come from lives as long as they do.
    Thread(target=_exit_with_parent, args=(multiprocessing.parent_process(),), daemon=True).start()


def _exit_with_parent(main: BaseProcess) -> None:
    main.join()
    os._exit(1)


def _identity(part: object) -> object:
    return part
