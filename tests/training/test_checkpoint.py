from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from ssltransfer.training.checkpoint import Checkpoint, Interrupted

STATE: dict[str, Any] = {"step": 7, "task": {"w": torch.arange(1000.0)}, "curve": [{"loss": 0.5}], "sums": {}}


@pytest.fixture(autouse=True)
def handlers() -> Any:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
    before: list[Any] = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_checkpoint_loads_what_it_saved(tmp_path: Path):
    checkpoint = Checkpoint(tmp_path / "c.pt")
    assert checkpoint.load() is None
    checkpoint.save(STATE, 7)
    found = checkpoint.load()
    assert found is not None and found["step"] == 7 and found["curve"] == STATE["curve"]
    assert torch.equal(found["task"]["w"], STATE["task"]["w"])
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_checkpoint_ignores_an_incomplete_file(share: float, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Only a disk that loses what it said was written can do this: the file is renamed when it is whole."""
    checkpoint = Checkpoint(tmp_path / "c.pt")
    checkpoint.save(STATE, 7)
    content = checkpoint.file.read_bytes()
    checkpoint.file.write_bytes(content[: int(share * len(content))])
    assert checkpoint.load() is None
    assert "incomplete checkpoint" in caplog.text


def test_checkpoint_keeps_the_last_file_when_a_write_fails(tmp_path: Path):
    checkpoint = Checkpoint(tmp_path / "c.pt")
    checkpoint.save(STATE, 7)
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save({"step": lambda: None}, 8)
    found = checkpoint.load()
    assert found is not None and found["step"] == 7
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_checkpoint_is_due_every_n_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "4")
    checkpoint = Checkpoint(tmp_path / "c.pt")
    assert [step for step in range(1, 13) if checkpoint.due(step)] == [4, 8, 12]


def test_checkpoint_is_due_after_n_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SSLTRANSFER_CHECKPOINT_STEPS", raising=False)
    assert not Checkpoint(tmp_path / "c.pt").due(10**9)  # five minutes by default
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_SECONDS", "0")
    assert Checkpoint(tmp_path / "c.pt").due(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_checkpoint_saves_on_a_signal(number: signal.Signals, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    checkpoint = Checkpoint(tmp_path / "c.pt")
    with checkpoint:
        assert not checkpoint.due(7)
        signal.raise_signal(number)
        assert checkpoint.due(7)
        caplog.set_level("INFO", "ssltransfer")
        with pytest.raises(Interrupted) as caught:
            checkpoint.save(STATE, 7)
        checkpoint.received_signal = None  # it has been answered here
    assert caught.value.code == 128 + number
    assert f"{number.name}: saved after step 7" in caplog.text
    assert checkpoint.load() is not None


def test_checkpoint_leaves_a_hangup_ignored_as_nohup_does(tmp_path: Path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Checkpoint(tmp_path / "c.pt") as checkpoint:
        signal.raise_signal(signal.SIGHUP)
    assert checkpoint.received_signal is None


def test_checkpoint_restores_signal_handlers(tmp_path: Path):
    """Also where a training breaks off; one that came too late to be answered is sent on."""
    sent: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: sent.append(number))
    with pytest.raises(ValueError, match="broken"), Checkpoint(tmp_path / "c.pt"):
        raise ValueError("broken")
    signal.raise_signal(signal.SIGTERM)
    assert sent == [signal.SIGTERM]
    with Checkpoint(tmp_path / "c.pt"):
        signal.raise_signal(signal.SIGTERM)
        assert len(sent) == 1
    assert len(sent) == 2


def test_checkpoint_ignores_other_versions(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    torch.save(STATE, tmp_path / "c.pt")
    assert Checkpoint(tmp_path / "c.pt").load() is None
    assert "another version" in caplog.text
