"""What a person sees while it trains: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm


class Progress:
    """Throughput, share of time spent waiting for data, loss beside the chance-level loss, time left.

    Args:
        what: what is done, such as "train".
        start, total: steps done before and steps altogether.
        batch: images a step.
    """

    def __init__(self, what: str, start: int, total: int, batch: int):
        self.what, self.start, self.total, self.batch = what, start, total, batch
        self.begun = self._logged = time.monotonic()
        self.waited = 0.0
        self.done = start
        self.images = 0
        self._bar = (
            tqdm(total=total, initial=start, desc=what, unit="step", leave=False) if sys.stderr.isatty() else None
        )

    def step(self, waited: float, images: int | None = None) -> None:
        """A step is done, of `images` if not of `batch`; `waited` seconds of it went into waiting for data."""
        self.done += 1
        self.images += self.batch if images is None else images
        self.waited += waited
        if self._bar:
            self._bar.update()

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / max(time.monotonic() - self.begun, 1e-9)

    @property
    def data_wait_fraction(self) -> float:
        """Share of the time spent waiting for data."""
        return self.waited / max(time.monotonic() - self.begun, 1e-9)

    def log(self, text: str, *, always: bool = False) -> None:
        """Show the state; in a log at most every ten seconds unless `always`."""
        if self._bar:
            self._bar.set_postfix_str(f"{text}, {self.data_wait_fraction:.0%} waiting for data")
            return
        now = time.monotonic()
        if not always and now - self._logged < 10:
            return
        self._logged = now
        done = self.done - self.start
        left = (self.total - self.done) * (now - self.begun) / done if done else 0.0
        print(
            f"{self.what}: step {self.done}/{self.total}, {text}, {self.rate:.0f} images/s, "
            f"{self.data_wait_fraction:.0%} waiting for data, {_clock(left)} left",
            flush=True,
        )

    def close(self) -> dict[str, float]:
        """End the display; returns what run.json keeps."""
        if self._bar:
            self._bar.close()
        return {"images_per_second": round(self.rate, 1), "data_wait_fraction": round(self.data_wait_fraction, 3)}


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
