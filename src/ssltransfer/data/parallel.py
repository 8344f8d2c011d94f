"""Parallel jobs in parts, computed by processes that never outlive the main one."""

import multiprocessing
import os
import shutil
import signal
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, TypeVar

from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ssltransfer.errors import UserError
from ssltransfer.logs import heartbeat
from ssltransfer.processes import on_exit_of

SHARED_MEMORY = "/dev/shm"


class WorkerError(UserError):
    """A loader worker cannot send what it computed."""


T_co = TypeVar("T_co", covariant=True)


class Job(Dataset[T_co]):
    """A job in parts that can be computed in any order by `job[number]`; it is pickled for the processes.

    Attributes:
        spans: the items of each part.
    """

    spans: Sequence[range]

    def __len__(self) -> int:
        return len(self.spans)


def parallel_imap(job: Job[T_co], *, threads: int, unit: str) -> Iterator[T_co]:
    """Compute the parts of a job in `threads` processes (1: in this one); yields them in order.

    `unit` is the name of an item in the progress bar. An `ArtifactError` of a part is raised again.

    Raises:
        WorkerError: a worker cannot be started, or cannot send its parts.
    """
    workers = min(threads, len(job)) if threads > 1 else 0
    # Not forked from this process: a worker that outlives a killed job must not hold its lock.
    context = multiprocessing.get_context("forkserver") if workers else None
    if context:
        context.set_forkserver_preload([type(job).__module__])
    loader: DataLoader[Any] = DataLoader(
        job,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=1 if workers else None,
        multiprocessing_context=context,
        worker_init_fn=_start_worker,
        collate_fn=_identity,
    )
    total = sum(map(len, job.spans))
    done = 0
    with (
        tqdm(total=total, unit=unit, disable=None, leave=False) as bar,
        heartbeat(lambda: f"{unit} {done}/{total}"),
        original_errors(),
    ):
        for span, part in zip(job.spans, loader, strict=True):
            done += len(span)
            bar.update(len(span))
            yield part


@contextmanager
def original_errors() -> Iterator[None]:
    """Re-raise a user error of a `DataLoader` worker with its original message.

    torch raises an error of the same class whose message is the worker's whole traceback.
    """
    try:
        yield
    except Exception as error:
        # The frames refer to the loader in a cycle, and the process cannot end before the loader's workers.
        traceback.clear_frames(error.__traceback__)
        if isinstance(error, OSError) and (cause := undelivered(error)):
            raise cause from None
        if not isinstance(error, UserError):
            raise
        kind = type(error)
        _, from_worker, message = str(error).rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")
        if not from_worker:
            raise
        raise kind(message.rstrip("\n")) from None


def report_undelivered() -> None:
    """In a worker: let the main process raise the error when a result cannot be sent, instead of waiting forever."""
    # The queue's thread calls this hook, whose default only prints the traceback.
    Queue._on_queue_feeder_error = _send_error  # type: ignore[attr-defined]


def _send_error(queue: "Queue[Any]", error: Exception, item: tuple[int, Any]) -> None:
    cause = undelivered(error) or error
    queue.put((item[0], ExceptionWrapper((type(cause), cause, error.__traceback__), where="in a loader worker")))


def undelivered(error: Exception) -> WorkerError | None:
    """The user error for a result that cannot be sent, or a worker that cannot be started; None for other errors."""
    text = str(error)
    if "AF_UNIX path too long" in text:
        folder = tempfile.gettempdir()
        return WorkerError(
            f"TMPDIR ({folder}, {len(folder)} characters) is too long for the sockets of the worker processes; set "
            "TMPDIR to a shorter path, such as /tmp."
        )
    if ("No space left on device" in text or "shared memory" in text) and Path(SHARED_MEMORY).is_dir():
        size = shutil.disk_usage(SHARED_MEMORY).total >> 20
        return WorkerError(
            f"{SHARED_MEMORY} ({size} MB) is too small for the batches of the loader workers; enlarge it (a container: "
            "--shm-size=8g), or load in the main process (SSLTRANSFER_WORKERS=0)."
        )
    return None


def _start_worker(worker: int) -> None:
    report_undelivered()
    # Ctrl-C reaches every process of a terminal; the main process ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The fork server does not end its workers when the main process is killed.
    main = multiprocessing.parent_process()
    assert main is not None and main.pid is not None
    on_exit_of(main.pid, lambda: os._exit(1))


def _identity(part: Any) -> Any:
    return part
