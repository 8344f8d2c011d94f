"""Log messages: one logger, plain lines on standard output (Snakemake keeps them in the job's log file)."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

LOG_SECONDS = 30  # longest silence of a job

logger = logging.getLogger("ssltransfer")


class _StdoutHandler(logging.StreamHandler[TextIO]):
    """Writes to `sys.stdout` as it is at that moment: processes other than the first redirect it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Ignore a pipe without a reader: the job does not need its output."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout


def configure_logging() -> None:
    """Print the messages of this package, without a prefix. The command line calls this once."""
    logger.setLevel(logging.INFO)
    logger.handlers = [_StdoutHandler()]


@contextmanager
def heartbeat(describe: Callable[[], str]) -> Iterator[None]:
    """Log `describe()` and the time every 30 seconds while the block runs, for work without steps of its own."""
    began, ended = time.monotonic(), threading.Event()

    def beat() -> None:
        while not ended.wait(LOG_SECONDS):
            logger.info(f"{describe()}, {time.monotonic() - began:.0f} s")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
