from __future__ import annotations

import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from ssltransfer.training import progress as module
from ssltransfer.training.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which the test sets."""
    now = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_progress_line_has_step_loss_rate_and_time_left(clock: list[float], caplog: pytest.LogCaptureFixture):
    """20 of 100 steps in 40 s, 10 s of them waiting: 20 * 8 / 40 = 4 images/s, 25 %, 80 * 2 = 160 s left."""
    caplog.set_level("INFO", "ssltransfer")

    def batches():
        clock[0] += 0.5
        yield "batch"

    progress = Progress("train", 1900, 2000, 8)
    for _ in range(20):
        assert progress.next(batches()) == "batch"
        clock[0] += 1.5
        progress.step()
    caplog.clear()
    progress.log("loss 2.100 (chance 2.079)")
    line = "train: step 1920/2000, loss 2.100 (chance 2.079), 4 images/s, 25% waiting for data, 0:02:40 left"
    assert caplog.messages == [line]
    assert progress.close() == {"images_per_second": 4.0, "data_wait_fraction": 0.25}


def test_progress_logs_every_10_to_30_seconds(clock: list[float], caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "ssltransfer")
    progress = Progress("search", 0, 100, 1)
    times = []
    for _ in range(60):
        clock[0] += 1
        before = len(caplog.messages)
        progress.step()
        if clock[0] < 130:
            progress.log("found")
        times += [clock[0] - 100] * (len(caplog.messages) - before)
    assert times == [10, 20, 50]


@pytest.mark.parametrize("fails", [False, True])
def test_progress_logs_during_a_long_step(
    fails: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "LOG_SECONDS", 0.2)
    caplog.set_level("INFO", "ssltransfer")
    with suppress(ZeroDivisionError), Progress("train", 3, 5, 1) as progress:
        time.sleep(0.5)
        if fails:
            raise ZeroDivisionError
        progress.step()
        time.sleep(0.3)
    assert caplog.messages[0].startswith("train: step 3/5, 0 images/s, ")
    assert caplog.messages[-1].startswith(f"train: step {3 if fails else 4}/5")
    count = len(caplog.messages)
    assert 2 <= count <= 4
    time.sleep(0.4)
    assert len(caplog.messages) == count  # the thread has ended
