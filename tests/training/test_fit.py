"""The loop against a plain loop in torch, with a task small enough to write down."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch, load_batches, sequential_keys, training_keys
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.training import fit as module
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit, validate
from ssltransfer.training.task import Task, TrainingError
from ssltransfer.training.train_step import build_optimizer, set_lr

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
        self.steps += step  # type: ignore[operator]


def run(folder: Path, index: Index, schedule: Schedule, task: Small | None = None, **kw: Any) -> tuple[Small, Any]:
    task = task or Small()
    return task, fit(task, index, schedule, seed=5, folder=folder, devices=CPU, **kw)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_it_is_a_plain_loop(tmp_path: Path, objects: Index):
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


def test_a_row_of_the_curve_is_a_mean_over_its_steps(tmp_path: Path, objects: Index, monkeypatch: pytest.MonkeyPatch):
    schedule = Schedule(steps=10, batch_size=8, lr=0.1)
    _, every = run(tmp_path / "a", objects, schedule)
    monkeypatch.setattr(module, "ROWS", 3)
    _, some = run(tmp_path / "b", objects, schedule)
    losses = [row["loss"] for row in every.curve]
    assert [row["step"] for row in some.curve] == [3, 6, 9, 10]
    expected = [sum(losses[:3]) / 3, sum(losses[3:6]) / 3, sum(losses[6:9]) / 3, losses[9]]
    assert [row["loss"] for row in some.curve] == pytest.approx(expected)


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_cut_off_and_resumed_it_is_the_same(stop: int, tmp_path: Path, objects: Index, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "2")
    monkeypatch.setattr(module, "ROWS", 3)
    schedule = Schedule(steps=9, batch_size=16, lr=0.1, optimizer="adam", momentum=0.8)
    whole, curve = run(tmp_path / "whole", objects, schedule)

    class Cut(Small):
        def after_step(self, step: int) -> None:
            if step == stop:
                raise KeyboardInterrupt
            super().after_step(step)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", objects, schedule, Cut())
    assert not (tmp_path / "cut" / "curve.jsonl").exists()
    resumed = Small()
    torch.manual_seed(99)
    for parameter in resumed.parameters():
        parameter.data.normal_()  # whatever stood there before
    if stop < 2:
        resumed = Small()  # no checkpoint yet: from nothing
    _, again = run(tmp_path / "cut", objects, schedule, resumed)
    assert same(whole, resumed) and curve.curve == again.curve
    assert len(resumed.parts) == 9 - (stop // 2) * 2


def test_training_images_are_surveyed_once(tmp_path: Path, objects: Index, monkeypatch: pytest.MonkeyPatch):
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


def test_a_finished_training_is_not_repeated(tmp_path: Path, objects: Index):
    schedule = Schedule(steps=3, batch_size=8, lr=0.1)
    one, curve = run(tmp_path, objects, schedule)
    two, again = run(tmp_path, objects, schedule)
    assert same(one, two) and two.parts == [] and again.curve == curve.curve


def test_measuring_changes_nothing(tmp_path: Path, objects: Index, objects_val_path: Path):
    schedule = Schedule(steps=6, batch_size=8, lr=0.1)
    alone, _ = run(tmp_path / "a", objects, schedule)
    measured, fitted = run(tmp_path / "b", objects, schedule, val=read_index(objects_val_path))
    assert same(alone, measured) and "val_loss" in fitted.curve[-1]


@pytest.mark.parametrize("batch", [4, 10, 100])
def test_the_val_loss_is_a_mean_over_images(batch: int, objects: Index):
    task = Small().train()
    schedule = Schedule(steps=1, batch_size=batch)
    found = validate(task, objects, schedule, seed=5, devices=CPU)
    assert task.training
    (all_of_them,) = load_batches(objects, task.transform, sequential_keys(range(48), 48), seed=5)
    with torch.no_grad():
        expected = task.eval()(all_of_them, all_of_them.rng(seed_of(5, "val")))["loss"]
    assert found == {"val_loss": pytest.approx(float(expected), rel=1e-5)}


def test_of_many_val_images_some_are_measured_evenly(objects: Index, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "VAL_IMAGES", 10)
    task = Small()
    validate(task, objects, Schedule(steps=1, batch_size=64), seed=5, devices=CPU)
    assert task.parts == [10]  # every fifth of 48


def test_micro_batches_accumulate_the_batch(tmp_path: Path, objects: Index):
    class Plain(Small):
        def logits(self, batch: Batch) -> Tensor:
            found: Tensor = self.linear(batch.images.float().flatten(1) / 255)
            return found

    whole, one = run(tmp_path / "a", objects, Schedule(steps=4, batch_size=16, lr=0.1), Plain())
    parts, two = run(tmp_path / "b", objects, Schedule(steps=4, batch_size=16, lr=0.1, micro_batch_size=4), Plain())
    assert whole.parts == [16] * 4 and parts.parts == [4] * 16
    assert torch.allclose(whole.linear.weight, parts.linear.weight, atol=1e-6)
    assert [row["loss"] for row in one.curve] == pytest.approx([row["loss"] for row in two.curve], rel=1e-5)


def test_the_whole_gradient_is_clipped(tmp_path: Path, objects: Index):
    start = Small()
    schedule = Schedule(
        steps=1, batch_size=16, lr=1.0, momentum=0.0, weight_decay=0.0, clip_grad_norm=0.01, micro_batch_size=4
    )
    task, _ = run(tmp_path, objects, schedule)
    moved = [(after - before).detach() for before, after in zip(start.parameters(), task.parameters(), strict=True)]
    assert math.sqrt(sum(float(step.square().sum()) for step in moved)) == pytest.approx(0.01, rel=1e-3)


def test_biases_and_norms_have_rates_and_decay_of_their_own():
    schedule = Schedule(steps=1, lr=0.1, bias_lr_mult=2.0, weight_decay=0.01, decay_norm_and_bias=False)
    task = Small()
    task.linear.bias.requires_grad_(False)
    optimizer = build_optimizer(task, schedule)
    set_lr(optimizer, 0.5)
    settings = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert settings == {
        id(task.norm.weight): (0.5, 0.0),
        id(task.norm.bias): (1.0, 0.0),
        id(task.linear.weight): (0.5, 0.01),
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW"), ("rmsprop", "RMSprop")],
)
def test_optimizers_are_torchs(name: str, kind: str):
    schedule = Schedule.model_validate({"steps": 1, "optimizer": name})
    assert type(build_optimizer(Small(), schedule)).__name__ == kind


def test_a_loss_that_is_not_finite_stops_at_once(tmp_path: Path, objects: Index):
    class Broken(Small):
        def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
            loss = super().forward(batch, rng)["loss"]
            return {"loss": loss * (float("nan") if len(self.parts) == 3 else 1.0)}

    with pytest.raises(TrainingError, match=r"The loss is not finite at step 2 \(learning rate 0\.1"):
        run(tmp_path, objects, Schedule(steps=5, batch_size=8, lr=0.1), Broken())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["not_finite.pt"]
