"""Downloads by torchvision, one process at a time, with one-sentence errors."""

import socket
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.error import URLError

from filelock import FileLock, Timeout

from ssltransfer.artifacts.files import friendly_os_errors
from ssltransfer.config.formats import Torchvision
from ssltransfer.data.formats import LayoutError
from ssltransfer.logs import logger

T = TypeVar("T")

DOWNLOAD_TIMEOUT = 60
"""Network timeout in seconds of a download."""


@contextmanager
def download_lock(root: Path, name: str) -> Iterator[None]:
    """Lock out processes that download or write the same data set, such as jobs that index its other splits."""
    with friendly_os_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / f".{name}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            logger.info(f"{root}: another process is preparing {name}; waiting for it.")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def fetch(dataset: Torchvision, root: Path, load: Callable[[bool], T]) -> T:
    """Call `load(download)` of torchvision.

    Raises:
        LayoutError: the files are missing or damaged and may not be downloaded, or the download fails.
        ArtifactError: the disk is full.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with friendly_os_errors(root):
            return load(dataset.download)
    except (URLError, TimeoutError, ConnectionError, socket.gaierror) as error:
        reason = getattr(error, "reason", None) or error
        raise LayoutError(
            f"{root}: {dataset.format} is missing and cannot be downloaded ({reason}); check the network, or put the "
            "files there manually (docs/datasets.md lists them)."
        ) from None
    except (RuntimeError, tarfile.TarError, EOFError, FileNotFoundError) as error:
        if dataset.download:
            raise LayoutError(
                f"{root}: {dataset.format} was downloaded but is damaged ({error}); remove it and run again."
            ) from None
        raise missing_dataset_error(dataset, root) from None
    finally:
        socket.setdefaulttimeout(before)


def missing_dataset_error(dataset: Torchvision, root: Path) -> LayoutError:
    """The message for missing files that may not be downloaded."""
    return LayoutError(
        f"{root}: {dataset.format} is missing or damaged; set download: true, or put its files there "
        "(docs/datasets.md lists them)."
    )
