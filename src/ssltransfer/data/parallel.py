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

Made = TypeVar("Made", covariant=True)


class Job(Protocol[Made]):
    """What can be made part by part, in any order; it travels to the processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Made:
        """The part, made where it is not there yet.

        Raises:
            ArtifactError: it cannot be made.
        """


def made_by_processes(job: Job[Made], sizes: Iterable[int], *, threads: int, unit: str, preload: str) -> Iterator[Made]:
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
        collate_fn=_as_it_is,
    )
    sizes = list(sizes)
    with tqdm(total=sum(sizes), unit=unit, disable=None, leave=False) as bar:
        for size, part in zip(sizes, loader, strict=True):
            if isinstance(part, _Failed):
                raise ArtifactError(part.sentence)
            bar.update(size)
            yield part


class _Failed:
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
            return _Failed(str(error))


def _live_and_die_with_the_job(worker: int) -> None:
    # Ctrl-C reaches every process of a terminal; the main process ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A killed main process ends nobody, and the server that workers come from lives as long as they do.
    Thread(target=_end_after, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_after(main: BaseProcess) -> None:
    main.join()
    os._exit(1)


def _as_it_is(part: object) -> object:
    return part
