"""Log lines of long work."""

from __future__ import annotations

import time

import pytest

from ssltransfer import logs
from ssltransfer.data.parallel import Job, parallel_imap


class SlowJob(Job[int]):
    """Two parts of three items; each part takes half a second."""

    spans = (range(3), range(3, 6))

    def __getitem__(self, number: int) -> int:
        time.sleep(0.5)
        return number


@pytest.mark.parametrize("threads", [1, 2])
def test_parallel_imap_logs_progress_while_parts_are_computed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, threads: int
):
    monkeypatch.setattr(logs, "LOG_SECONDS", 0.2)
    monkeypatch.setattr(logs.logger, "propagate", True)
    caplog.set_level("INFO", "ssltransfer")
    parts = parallel_imap(SlowJob(), threads=threads, unit="image")
    assert list(parts) == [0, 1]
    lines = [message.split(",")[0] for message in caplog.messages]
    assert lines[0] == "image 0/6"
    if threads == 1:
        assert "image 3/6" in lines
    count = len(lines)
    time.sleep(0.5)
    assert len(caplog.messages) == count  # the thread has ended
