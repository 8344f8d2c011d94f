"""Precision, compilation and the start line, on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import BackboneOptions, ResNet18
from ssltransfer.config.schedule import Precision, Schedule
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.devices import Devices, _gpu_number
from ssltransfer.training.fit import fit
from ssltransfer.training.task import Task
from tests.helpers.small_tasks import SMALL, small_task

CPU = Devices(torch.device("cpu"), 0)


class Wide(Task):
    """Remembers in which precision its layer computed."""

    chance_loss = 2.0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(48, 8)
        self.dtypes: set[torch.dtype] = set()

    @property
    def transform(self) -> ResizeCenterCrop:
        return ResizeCenterCrop(4, 4)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        logits = self.linear(batch.images.float().flatten(1) / 255 + 0.1 * rng.normal("noise", 1))
        self.dtypes.add(logits.dtype)
        return {"loss": F.cross_entropy(logits.float(), batch.ids % 8)}


def run(folder: Path, index: Index, **kw: object) -> tuple[Wide, TrainResult]:
    task = Wide()
    schedule = Schedule.model_validate({"steps": 6, "batch_size": 8, "lr": 0.1, **kw})
    return task, fit(task, index, schedule, seed=5, folder=folder, devices=CPU)


@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"),
    [
        ("auto", torch.float32, 0.0),
        ("float32", torch.float32, 0.0),
        ("bfloat16", torch.bfloat16, 0.02),
        ("float16", torch.float16, 0.002),
    ],
)
def test_autocast_computes_in_the_configured_precision(
    precision: Precision, dtype: torch.dtype, tolerance: float, tmp_path: Path, objects: Index
):
    exact, _ = run(tmp_path / "exact", objects)
    task, _ = run(tmp_path / "other", objects, precision=precision)
    assert task.dtypes == {dtype} and task.linear.weight.dtype == torch.float32
    difference = float((task.linear.weight - exact.linear.weight).abs().max().detach())
    assert difference <= tolerance and (difference > 0) == (dtype != torch.float32)


def test_float16_scale_survives_a_restart(tmp_path: Path, objects: Index, monkeypatch: pytest.MonkeyPatch):
    """The first scale, 65536, is too large for steep losses; it is halved until the gradients are finite."""
    monkeypatch.setattr(Wide, "forward", lambda self, batch, rng: {"loss": 3e4 * forward_of(self, batch, rng)})
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "4")
    options = {"precision": "float16", "lr": 1e-6, "steps": 9}
    whole, curve = run(tmp_path / "whole", objects, **options)
    monkeypatch.setattr(Wide, "after_step", stop_at_five)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", objects, **options)
    state = torch.load(tmp_path / "cut" / "checkpoint.pt")
    assert state["step"] == 4 and 0 < state["trainer"]["scaler"]["scale"] < 65536
    monkeypatch.setattr(Wide, "after_step", Task.after_step)
    resumed, again = run(tmp_path / "cut", objects, **options)
    assert torch.equal(whole.linear.weight, resumed.linear.weight) and curve.curve == again.curve


def forward_of(task: Wide, batch: Batch, rng: SampleRNG) -> Tensor:
    logits = task.linear(batch.images.float().flatten(1) / 255 + 0.1 * rng.normal("noise", 1))
    return F.cross_entropy(logits.float(), batch.ids % 8)


def stop_at_five(task: Task, step: int) -> None:
    if step == 5:
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [ResNet18(width_mult=0.125, img_size=48), SMALL])
def test_compiled_backbone_trains_the_same(backbone: BackboneOptions, tmp_path: Path, objects: Index):
    """In graphs without breaks."""
    counters.clear()
    curves, states = [], []
    for compile in (False, True):
        task = small_task("jigsaw++", backbone)
        for module in task.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # compiled code draws other masks
        folder = tmp_path / str(compile)
        folder.mkdir()
        schedule = Schedule(steps=3, batch_size=8, lr=0.01, compile=compile)
        curves.append([row["loss"] for row in fit(task, objects, schedule, seed=0, folder=folder, devices=CPU).curve])
        states.append(list(task.state_dict()))
    assert states[0] == states[1]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    assert counters["stats"]["unique_graphs"] and not counters["graph_break"]


def test_devices_describe_the_number_of_processes():
    assert "processes" not in str(CPU)
    assert "2 processes" in str(Devices(torch.device("cpu"), 3, rank=1, world=2))
    assert str(Devices(torch.device("cpu"), 3, rank=1, world=2)).endswith("3 loader workers each")


def planned(visible: str) -> subprocess.CompletedProcess[str]:
    """`plan_devices` in a process of its own: torch looks for GPUs once."""
    code = "from ssltransfer.training.devices import plan_devices; print(plan_devices(1).device.type)"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_auto_is_float16_where_bfloat16_is_emulated(monkeypatch: pytest.MonkeyPatch):
    for supported, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(
            "torch.cuda.is_bf16_supported", lambda including_emulation, yes=supported: including_emulation or yes
        )
        assert Devices(torch.device("cuda"), 0).dtype() == dtype


@pytest.mark.parametrize(
    ("visible", "count", "numbers"),
    [("2,3", 2, [0, 1]), ("2,3", 4, [2, 3]), (None, 4, [0, 1]), ("1", 1, [0, 0]), ("GPU-8a", 1, [0, 0])],
)
def test_each_process_takes_an_allocated_gpu(
    visible: str | None, count: int, numbers: list[int], monkeypatch: pytest.MonkeyPatch
):
    """Also where CUDA counted four GPUs before the variable was set, and keeps to it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert [_gpu_number(local) for local in range(2)] == numbers


@pytest.mark.parametrize("visible", ["99", "99,-1"])
def test_plan_devices_rejects_unusable_gpus(visible: str):
    run = planned(visible)
    assert run.returncode and f"CUDA_VISIBLE_DEVICES is '{visible}', but torch finds no usable GPU" in run.stderr


@pytest.mark.parametrize("visible", ["-1", "-1,0", "", ",0", "NoDevFiles"])
def test_plan_devices_takes_the_cpu_when_gpus_are_hidden(visible: str):
    run = planned(visible)
    assert (run.returncode, run.stdout.strip()) == (0, "cpu"), run.stderr


def test_schedule_spec_omits_defaults():
    assert Schedule(steps=3).canonical() == '{"steps":3}'
