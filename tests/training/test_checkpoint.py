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
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before: list[Any] = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_what_is_saved_is_loaded(tmp_path: Path):
    checkpoint = Checkpoint(tmp_path / "c.pt")
    assert checkpoint.load() is None
    checkpoint.save(STATE, 7)
    found = checkpoint.load()
    assert found is not None and found["step"] == 7 and found["curve"] == STATE["curve"]
    assert torch.equal(found["task"]["w"], STATE["task"]["w"])
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_torn_checkpoint_is_as_none(share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Only a disk that loses what it said was written can do this: the file is renamed when it is whole."""
    checkpoint = Checkpoint(tmp_path / "c.pt")
    checkpoint.save(STATE, 7)
    content = checkpoint.file.read_bytes()
    checkpoint.file.write_bytes(content[: int(share * len(content))])
    assert checkpoint.load() is None
    assert "not a whole checkpoint" in capsys.readouterr().out


def test_a_failed_write_leaves_the_last_one(tmp_path: Path):
    checkpoint = Checkpoint(tmp_path / "c.pt")
    checkpoint.save(STATE, 7)
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save({"step": lambda: None}, 8)
    found = checkpoint.load()
    assert found is not None and found["step"] == 7
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_it_is_due_every_so_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "4")
    checkpoint = Checkpoint(tmp_path / "c.pt")
    assert [step for step in range(1, 13) if checkpoint.due(step)] == [4, 8, 12]


def test_it_is_due_after_so_many_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SSLTRANSFER_CHECKPOINT_STEPS", raising=False)
    assert not Checkpoint(tmp_path / "c.pt").due(10**9)  # five minutes by default
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_SECONDS", "0")
    assert Checkpoint(tmp_path / "c.pt").due(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_told_to_end_it_saves_first(number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    checkpoint = Checkpoint(tmp_path / "c.pt")
    with checkpoint:
        assert not checkpoint.due(7)
        signal.raise_signal(number)
        assert checkpoint.due(7)
        with pytest.raises(Interrupted) as caught:
            checkpoint.save(STATE, 7)
        checkpoint.received_signal = None  # it has been answered here
    assert caught.value.code == 128 + number
    assert f"{number.name}: saved after step 7" in capsys.readouterr().out
    assert checkpoint.load() is not None


def test_afterwards_signals_mean_what_they_meant(tmp_path: Path):
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


def test_a_state_of_another_version_is_as_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save(STATE, tmp_path / "c.pt")
    assert Checkpoint(tmp_path / "c.pt").load() is None
    assert "another version" in capsys.readouterr().out
