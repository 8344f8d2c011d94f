"""Progress reporting: a bar on a terminal, plain lines in a log."""

import sys
import threading
import time
from collections.abc import Iterator
from typing import ClassVar, Self, TypeVar

from tqdm import tqdm

from ssltransfer.logs import LOG_SECONDS, logger

SHORTEST_SECONDS = 10  # between two lines of a log

T = TypeVar("T")


class Progress:
    """Steps, throughput, fraction of time spent waiting for data, and remaining time of a job (`what`, as "train").

    `start` of its `total` steps were completed by an interrupted run. A step has `batch` images. In a `with` block a
    log gets a line at least every 30 seconds, however long a step takes.
    """

    _latest: ClassVar[float] = 0.0  # line of any progress
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, what: str, start: int, total: int, batch: int):
        self.what, self.start, self.total, self.batch = what, start, total, batch
        self.began = self._last_line = time.monotonic()
        self.waited = 0.0
        self.done = start
        self.images = 0
        self._text = ""
        self._bar = (
            tqdm(total=total, initial=start, desc=what, unit="step", leave=False) if sys.stderr.isatty() else None
        )

    def __enter__(self) -> Self:
        """Start the thread that logs during long steps."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._bar and not self._ended.wait(max(0.01, self._due() - time.monotonic())):
            if time.monotonic() >= self._due():
                self._line(LOG_SECONDS)

    def _due(self) -> float:
        return max(self._last_line, Progress._latest) + LOG_SECONDS

    def next(self, batches: Iterator[T]) -> T:
        """The next batch. The time until it arrives counts as waiting for data."""
        began = time.monotonic()
        batch = next(batches)
        self.waited += time.monotonic() - began
        return batch

    def step(self, images: int | None = None) -> None:
        """Count one step, of `images` instead of `batch` images if given."""
        self.done += 1
        self.images += self.batch if images is None else images
        if self._bar:
            self._bar.update()
        else:
            self._line(LOG_SECONDS)

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / max(time.monotonic() - self.began, 1e-9)

    @property
    def data_wait_fraction(self) -> float:
        """Fraction of the time spent waiting for data, 0 to 1."""
        return self.waited / max(time.monotonic() - self.began, 1e-9)

    def log(self, text: str) -> None:
        """Show `text` with the state. A log gets at most one line in ten seconds."""
        self._text = f", {text}"
        if self._bar:
            self._bar.set_postfix_str(f"{text}, {self.data_wait_fraction:.0%} waiting for data")
        else:
            self._line(SHORTEST_SECONDS)

    def _line(self, seconds: float) -> None:
        """Log the state if the last line is at least `seconds` old."""
        now = time.monotonic()
        with self._lock:
            if now - self._last_line < seconds:
                return
            self._last_line = Progress._latest = now
        done = self.done - self.start
        left = (self.total - self.done) * (now - self.began) / done if done else 0.0
        minutes, seconds = divmod(int(left), 60)
        logger.info(
            f"{self.what}: step {self.done}/{self.total}{self._text}, {self.rate:.0f} images/s, "
            f"{self.data_wait_fraction:.0%} waiting for data, {minutes // 60}:{minutes % 60:02}:{seconds:02} left"
        )

    def close(self) -> dict[str, float]:
        """End the display, and return the throughput for run.json."""
        if self._bar:
            self._bar.close()
        return {"images_per_second": round(self.rate, 1), "data_wait_fraction": round(self.data_wait_fraction, 3)}
