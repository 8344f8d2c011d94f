"""Several tasks in one loop, against loops that are written down plainly."""

from __future__ import annotations

import math
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import load_batches, training_keys
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit
from ssltransfer.training.multi_task import TaskRun, fit_multi_task, task_order
from ssltransfer.training.task import TrainingError
from tests.helpers.modulo_tasks import Common, Modulo, pair

CPU = Devices(torch.device("cpu"), 0)


def run(folder: Path, runs: list[TaskRun], total: int = 12, **kw: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return fit_multi_task(runs, total, folder=folder, devices=kw.pop("devices", CPU), **kw)


def same(one: list[TaskRun], other: list[TaskRun]) -> bool:
    pairs = [
        (value, b.task.state_dict()[key])
        for a, b in zip(one, other, strict=True)
        for key, value in a.task.state_dict().items()
    ]
    return all(torch.equal(value, again) for value, again in pairs)


@pytest.mark.parametrize("seed", range(8))
def test_task_order_keeps_each_share_to_less_than_a_step(seed: int):
    random = Random(seed)
    shares = [random.choice([1, 2, 5, 1 / 350, 1 / 90, random.random()]) for _ in range(2 + seed % 4)]
    had = [0] * len(shares)
    for step, turn in enumerate(islice(task_order(shares), 2000), start=1):
        had[turn] += 1
        for number, share in zip(had, shares, strict=True):
            assert abs(number - step * share / sum(shares)) < 1 + step * 1e-5


def test_task_order_alternates_equal_tasks():
    assert list(islice(task_order([1, 1, 1]), 7)) == [0, 1, 2, 0, 1, 2, 0]
    assert list(islice(task_order([2, 1]), 6)) == [0, 0, 1, 0, 0, 1]
    assert list(islice(task_order([7]), 3)) == [0, 0, 0]


def test_multi_task_with_one_task_equals_fit(tmp_path: Path, objects: Index, objects_val_path: Path):
    val = read_index(objects_val_path)
    schedule = Schedule(steps=9, batch_size=8, lr=0.1, lr_schedule="cosine")
    plain = Modulo(Common(), 3, [], dropout=0.3)
    whole = fit(plain, objects, schedule, seed=5, folder=tmp_path, devices=CPU, val=val)
    alone = TaskRun(Modulo(Common(), 3, [], dropout=0.3), objects, schedule, 5, val, "three")
    found = run(tmp_path / "b", [alone], 9)
    assert same([TaskRun(plain, objects, schedule, 5)], [alone])
    for row, again in zip(whole.curve, found.curve, strict=True):
        renamed = {key if key == "step" else f"three.{key}": value for key, value in row.items()}
        assert again == renamed | {"loss": row["loss"]}


def plainly(runs: list[TaskRun], total: int, *, synchronous: bool) -> list[float]:
    """Two separate optimizers of torch, two streams of batches, and a list of turns."""
    order = cycle(range(len(runs))) if synchronous else task_order([run.weight for run in runs])
    plan = list(islice(order, total))
    optimizers = [
        torch.optim.RMSprop(
            run_.task.parameters(),
            lr=1.0,
            alpha=0.9,
            eps=1e-3,
            momentum=0.9,
            weight_decay=run_.schedule.weight_decay,
        )
        for run_ in runs
    ]
    streams = [
        load_batches(
            run_.index,
            run_.task.transform,
            training_keys(len(run_.index), run_.schedule.batch_size, 0, plan.count(place), run_.seed),
            seed=run_.seed,
        )
        for place, run_ in enumerate(runs)
    ]
    losses = []
    size = len(runs) if synchronous else 1
    for first in range(0, total, size):
        held: list[list[Any]] = []
        for step in range(first, first + size):
            run_ = runs[plan[step]]
            batch = next(streams[plan[step]])
            torch.manual_seed(seed_of(5, "step", step))
            for parameter in run_.task.parameters():
                parameter.grad = None
            loss = run_.task(batch, SampleRNG(run_.seed, batch.epochs, batch.ids))["loss"]
            loss.backward()
            held.append([parameter.grad for parameter in run_.task.parameters()])
            losses.append(float(loss.detach()))
        for step, gradients in enumerate(held, start=first):
            run_, optimizer = runs[plan[step]], optimizers[plan[step]]
            for parameter, gradient in zip(run_.task.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.param_groups[0]["lr"] = run_.schedule.lr_at(step, len(run_.index))
            optimizer.step()
    return losses


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("shares", [(1, 1), (3, 1)])
def test_multi_task_equals_plain_loops_with_an_optimizer_per_task(
    synchronous: bool, shares: tuple[float, float], tmp_path: Path, objects: Index
):
    found, plain = pair(objects, shares=shares, dropout=0.3), pair(objects, shares=shares, dropout=0.3)
    fitted = run(tmp_path, found, synchronous=synchronous)
    losses = plainly(plain, 12, synchronous=synchronous)
    assert same(found, plain)
    if not synchronous:
        plan = list(islice(task_order([run.weight for run in found]), 12))
        assert [row["loss"] for row in fitted.curve] == losses
        assert [
            row["three.loss" if turn == 0 else "five.loss"] for turn, row in zip(plan, fitted.curve, strict=True)
        ] == losses
        assert plan.count(0) == (6 if shares == (1, 1) else 9)
    # What differs if the second moments were common to both.
    assert fitted.curve[-1]["five.lr"] < fitted.curve[0]["five.lr"] and fitted.curve[-1]["three.lr"] == 0.002


def test_multi_task_synchronous_takes_gradients_at_the_same_weights(tmp_path: Path, objects: Index):
    """So that `synchronous` is another rule than taking turns."""
    one, other = pair(objects), pair(objects)
    run(tmp_path / "a", one, synchronous=True)
    run(tmp_path / "b", other)
    assert not same(one, other)


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("stop", [3, 6])
def test_multi_task_resumes_with_the_same_bytes(
    stop: int,
    synchronous: bool,
    tmp_path: Path,
    objects: Index,
    objects_val_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "2")
    val = read_index(objects_val_path)
    kw: Any = {"shares": (1, 2), "dropout": 0.3, "micro_batch_size": 4}
    whole = pair(objects, val, **kw)
    curve = run(tmp_path / "whole", whole, synchronous=synchronous).curve
    assert "three.val_loss" in curve[-1] and "five.val_loss" not in curve[-1]

    def cut(task: nn.Module, step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Modulo, "after_step", cut)
        run(tmp_path / "cut", pair(objects, val, **kw), synchronous=synchronous)
    resumed = pair(objects, val, **kw)
    for run_ in resumed:
        for parameter in run_.task.parameters():
            nn.init.normal_(parameter)  # to be overwritten by the checkpoint
    assert run(tmp_path / "cut", resumed, synchronous=synchronous).curve == curve
    assert same(whole, resumed)
    one, other = resumed[0].task, whole[0].task
    assert isinstance(one, Modulo) and isinstance(other, Modulo)
    assert one.seen == other.seen[-len(one.seen) :]
    assert len(one.seen) < len(other.seen)


def test_multi_task_does_not_depend_on_loader_workers(tmp_path: Path, objects: Index):
    one, other = pair(objects, shares=(1, 3)), pair(objects, shares=(1, 3))
    run(tmp_path / "a", one)
    run(tmp_path / "b", other, devices=Devices(torch.device("cpu"), 2))
    assert same(one, other)


def test_multi_task_saves_snapshots(tmp_path: Path, objects: Index):
    for synchronous, expected in ((False, [3, 8]), (True, [4, 8])):
        kept: list[int] = []
        run(
            tmp_path / str(synchronous),
            pair(objects),
            synchronous=synchronous,
            save_snapshot=kept.append,
            snapshot_steps=(3, 8),
        )
        assert kept == expected


def test_multi_task_names_task_of_nonfinite_loss(tmp_path: Path, objects: Index):
    with pytest.raises(TrainingError, match=r"The loss of (three|five) is not finite at step"):
        run(tmp_path, pair(objects, optimizer="sgd", lr=1e30))
    assert math.isfinite(pair(objects)[0].task.chance_loss)
