"""Log messages: one logger, plain lines on standard output (Snakemake keeps them in the job's log file)."""

import logging
import sys
from typing import TextIO

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
