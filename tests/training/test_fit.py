"""The loop against a plain loop in torch, with a task small enough to write down."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config import schedule as schedule_module
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch, load_batches, sequential_keys, training_keys
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.training import curve as curve_module
from ssltransfer.training import fit as module
from ssltransfer.training import progress as progress_module
from ssltransfer.training.checkpoint import Checkpoint
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit, validate
from ssltransfer.training.task import Task, TrainingError

CPU = Devices(torch.device("cpu"), 0)


class Small(Task):
    """Eight classes that are the sample's number modulo 8; dropout, a norm, and a counter that must survive."""

    chance_loss = math.log(8)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(48)
        self.dropout = nn.Dropout(0.3)
        self.linear = nn.Linear(48, 8)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.parts: list[int] = []

    @property
    def transform(self) -> ResizeCenterCrop:
        return ResizeCenterCrop(4, 4)

    def logits(self, batch: Batch) -> Tensor:
        x = batch.images.float().flatten(1) / 255
        found: Tensor = self.linear(self.dropout(self.norm(x)))
        return found

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        self.parts.append(len(batch))
        noise = rng.normal("noise", 8)
        return {"loss": F.cross_entropy(self.logits(batch) + 0.1 * noise, batch.ids % 8)}

    def after_step(self, step: int) -> None:
        self.get_buffer("steps").add_(step)


def run(folder: Path, index: Index, schedule: Schedule, task: Small | None = None, **kw: Any) -> tuple[Small, Any]:
    task = task or Small()
    return task, fit(task, index, schedule, seed=5, folder=folder, devices=CPU, **kw)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_fit_equals_a_plain_loop(tmp_path: Path, objects: Index):
    schedule = Schedule(steps=9, batch_size=8, lr=0.1, nesterov=True, weight_decay=0.01, lr_schedule="cosine", warmup=3)
    found, fitted = run(tmp_path, objects, schedule)

    task = Small()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    keys = training_keys(len(objects), 8, 0, 9, seed=5)
    losses = []
    for step, batch in enumerate(load_batches(objects, task.transform, keys, seed=5)):
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr_at(step, len(objects))
        torch.manual_seed(seed_of(5, "step", step))
        loss = task(batch, SampleRNG(5, batch.epochs, batch.ids))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        task.after_step(step)
        losses.append(loss.item())
    assert same(found, task)
    assert [row["loss"] for row in fitted.curve] == pytest.approx(losses)
    assert [row["step"] for row in fitted.curve] == list(range(1, 10))
    rows = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert rows == fitted.curve
    assert fitted.summary(task.chance_loss)["loss"] == fitted.curve[-1]["loss"]


def test_fit_trains_as_long_as_auto_says(tmp_path: Path, objects: Index, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schedule_module, "FEWEST_UPDATES", 5)
    monkeypatch.setattr(schedule_module, "AUTO_EPOCHS", 1)
    auto = Schedule(epochs="auto", batch_size=64, lr=0.1)
    found, fitted = run(tmp_path / "a", objects, auto)
    stated = Schedule(steps=5, batch_size=16, lr=0.1, warmup=0.1)
    assert auto.for_images(len(objects)) == stated, f"{len(objects)} images"
    expected, _ = run(tmp_path / "b", objects, stated)
    assert same(found, expected) and fitted.curve[-1]["step"] == 5


def test_fit_averages_the_loss_over_the_steps_of_a_row(tmp_path: Path, objects: Index, monkeypatch: pytest.MonkeyPatch):
    schedule = Schedule(steps=10, batch_size=8, lr=0.1)
    _, every = run(tmp_path / "a", objects, schedule)
    monkeypatch.setattr(curve_module, "ROWS", 3)
    _, some = run(tmp_path / "b", objects, schedule)
    losses = [row["loss"] for row in every.curve]
    assert [row["step"] for row in some.curve] == [3, 6, 9, 10]
    expected = [sum(losses[:3]) / 3, sum(losses[3:6]) / 3, sum(losses[6:9]) / 3, losses[9]]
    assert [row["loss"] for row in some.curve] == pytest.approx(expected)


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_fit_resumes_with_the_same_bytes(stop: int, tmp_path: Path, objects: Index, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "2")
    monkeypatch.setattr(curve_module, "ROWS", 3)
    schedule = Schedule(steps=9, batch_size=16, lr=0.1, optimizer="adam", momentum=0.8)
    whole, curve = run(tmp_path / "whole", objects, schedule)

    class Cut(Small):
        def after_step(self, step: int) -> None:
            if step == stop:
                raise KeyboardInterrupt
            super().after_step(step)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", objects, schedule, Cut())
    rows = (tmp_path / "cut" / "curve.jsonl").read_text().splitlines() if stop >= 3 else []
    assert [json.loads(row)["step"] for row in rows] == [3][: stop // 3]  # rows as they come
    assert [json.loads(row) for row in rows] == curve.curve[: len(rows)]
    if rows:
        (tmp_path / "cut" / "curve.jsonl").write_text('{"step": 3}\n{"st')  # a row after the checkpoint, half a row
    resumed = Small()
    torch.manual_seed(99)
    for parameter in resumed.parameters():
        parameter.data.normal_()  # to be overwritten by the checkpoint
    if stop < 2:
        resumed = Small()  # no checkpoint yet: from scratch
    _, again = run(tmp_path / "cut", objects, schedule, resumed)
    assert same(whole, resumed) and curve.curve == again.curve
    files = [(tmp_path / name / "curve.jsonl").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    assert len(resumed.parts) == 9 - (stop // 2) * 2


def test_fit_calls_on_train_start_once(tmp_path: Path, objects: Index, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "2")
    seen: list[int] = []

    class Surveying(Small):
        def on_train_start(self, index: Index, devices: Devices) -> None:
            assert self.training and not self.parts and devices is CPU
            seen.append(len(index))

        def after_step(self, step: int) -> None:
            if step == 3 and len(self.parts) == 4:
                raise KeyboardInterrupt

    schedule = Schedule(steps=5, batch_size=8, lr=0.1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, objects, schedule, Surveying())
    run(tmp_path, objects, schedule, Surveying())
    run(tmp_path, objects, schedule, Surveying())
    assert seen == [len(objects)]


def test_fit_does_not_repeat_a_finished_training(tmp_path: Path, objects: Index):
    schedule = Schedule(steps=3, batch_size=8, lr=0.1)
    one, curve = run(tmp_path, objects, schedule)
    two, again = run(tmp_path, objects, schedule)
    assert same(one, two) and two.parts == [] and again.curve == curve.curve


def test_validate_does_not_change_the_training(tmp_path: Path, objects: Index, objects_val_path: Path):
    schedule = Schedule(steps=6, batch_size=8, lr=0.1)
    alone, _ = run(tmp_path / "a", objects, schedule)
    measured, fitted = run(tmp_path / "b", objects, schedule, val=read_index(objects_val_path))
    assert same(alone, measured) and "val_loss" in fitted.curve[-1]


@pytest.mark.parametrize("batch", [4, 10, 100])
def test_validate_averages_over_images(batch: int, objects: Index):
    task = Small().train()
    schedule = Schedule(steps=1, batch_size=batch)
    found = validate(task, objects, schedule, seed=5, devices=CPU)
    assert task.training
    (all_of_them,) = load_batches(objects, task.transform, sequential_keys(range(48), 48), seed=5)
    with torch.no_grad():
        expected = task.eval()(all_of_them, all_of_them.rng(seed_of(5, "val")))["loss"]
    assert found == {"val_loss": pytest.approx(float(expected), rel=1e-5)}


def test_validate_logs_every_30_seconds(
    objects: Index, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "ssltransfer")
    now = [0.0]
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Slow(Small):
        def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
            now[0] += 20
            return super().forward(batch, rng)

    validate(Slow(), objects, Schedule(steps=1, batch_size=8), seed=5, devices=CPU)
    assert [line.split(",")[0] for line in caplog.messages] == [f"validate: step {step}/6" for step in (2, 4, 6)]


def test_fit_logs_during_a_long_step(
    tmp_path: Path, objects: Index, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "ssltransfer")
    monkeypatch.setattr(progress_module, "LOG_SECONDS", 0.2)

    class Slow(Small):
        def after_step(self, step: int) -> None:
            time.sleep(0.7 if step == 1 else 0)

    run(tmp_path, objects, Schedule(steps=2, batch_size=8), Slow())
    lines = [line.split(",")[0] for line in caplog.messages if line.startswith("train: ")]
    assert lines.count("train: step 1/2") >= 2


def test_validate_takes_evenly_spaced_images(objects: Index, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "VAL_IMAGES", 10)
    task = Small()
    validate(task, objects, Schedule(steps=1, batch_size=64), seed=5, devices=CPU)
    assert task.parts == [10]  # every fifth of 48


def test_fit_with_micro_batches_equals_fit_without(tmp_path: Path, objects: Index):
    class Plain(Small):
        def logits(self, batch: Batch) -> Tensor:
            found: Tensor = self.linear(batch.images.float().flatten(1) / 255)
            return found

    whole, one = run(tmp_path / "a", objects, Schedule(steps=4, batch_size=16, lr=0.1), Plain())
    parts, two = run(tmp_path / "b", objects, Schedule(steps=4, batch_size=16, lr=0.1, micro_batch_size=4), Plain())
    assert whole.parts == [16] * 4 and parts.parts == [4] * 16
    assert torch.allclose(whole.linear.weight, parts.linear.weight, atol=1e-6)
    assert [row["loss"] for row in one.curve] == pytest.approx([row["loss"] for row in two.curve], rel=1e-5)


def test_fit_stops_at_nonfinite_loss(tmp_path: Path, objects: Index):
    class Broken(Small):
        def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
            loss = super().forward(batch, rng)["loss"]
            return {"loss": loss * (float("nan") if len(self.parts) == 3 else 1.0)}

    with pytest.raises(TrainingError, match=r"The loss is not finite at step 2 \(learning rate 0\.1"):
        run(tmp_path, objects, Schedule(steps=5, batch_size=8, lr=0.1), Broken())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.jsonl", "not_finite.pt"]


def test_fit_saves_the_values_of_all_steps_whenever_a_checkpoint_becomes_due(
    tmp_path: Path, objects: Index, monkeypatch: pytest.MonkeyPatch
):
    """Values are read a step late; a checkpoint that becomes due meanwhile must not lack the last ones."""
    real, asked, saved = Checkpoint.save, 0, []

    def due(self: Checkpoint, step: int) -> bool:
        nonlocal asked
        asked += 1
        return asked % 2 == 0

    def save(self: Checkpoint, state: dict[str, Any], step: int) -> None:
        rows, sums = state["curve"]["rows"], state["curve"]["sums"]
        saved.append((step, (rows[-1]["step"] if rows else 0) + (sums["loss"][1] if sums else 0)))
        real(self, state, step)

    monkeypatch.setattr(Checkpoint, "due", due)
    monkeypatch.setattr(Checkpoint, "save", save)
    run(tmp_path, objects, Schedule(steps=300, batch_size=2, lr=0.1))
    assert len(saved) > 100
    assert all(step == steps_in_curve for step, steps_in_curve in saved)


@pytest.mark.parametrize("overflows", [1, 100])
def test_fit_skips_a_few_overflows_of_float16(overflows: int, tmp_path: Path, objects: Index):
    """The gradient scaler skips their steps and halves its scale; a loss that stays infinite ends the training."""

    class Overflowing(Small):
        def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
            loss = super().forward(batch, rng)["loss"]
            return {"loss": loss * (float("inf") if 1 < len(self.parts) <= 1 + overflows else 1.0)}

    schedule = Schedule(steps=40, batch_size=8, lr=0.01, precision="float16")
    if overflows > 40:
        with pytest.raises(TrainingError, match="The loss is not finite at step 17"):
            run(tmp_path, objects, schedule, Overflowing())
    else:
        task, fitted = run(tmp_path, objects, schedule, Overflowing())
        assert all(math.isfinite(row.get("loss", 0.0)) for row in fitted.curve) and "loss" not in fitted.curve[1]
        assert task.linear.weight.isfinite().all()
