"""Training on a GPU compared with the CPU: `make gpu-check` runs these tests on a real one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import ResNet18
from ssltransfer.config.schedule import Schedule
from ssltransfer.errors import advice_on
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit
from ssltransfer.training.multi_task import TaskRun, fit_multi_task
from ssltransfer.training.task import Task
from ssltransfer.training.train_step import Trainer
from tests.helpers.pretended_cuda import CUDA, on_gpu
from tests.helpers.small_tasks import TASKS, batch_of, small_task

CPU, GPU = Devices(torch.device("cpu"), 0), Devices(CUDA, 0)
pytestmark = pytest.mark.gpu


def weights(task: Task) -> Tensor:
    """All parameters in one vector on the CPU."""
    return torch.cat([parameter.detach().cpu().flatten() for parameter in task.parameters()])


@pytest.mark.parametrize("name", TASKS)
def test_update_of_a_task_on_a_gpu_equals_the_cpu(name: str, objects: Index) -> None:
    """In float32, without dropout, whose masks differ between devices."""
    schedule = Schedule(steps=1, batch_size=8, lr=0.01, precision="float32")
    losses, updates = [], []
    for devices in (CPU, GPU):
        with on_gpu() as cuda:
            task = small_task(name)
            for module in task.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            before = weights(task)
            trainer = Trainer(task, schedule, 0, devices)
            values = trainer.forward_backward(batch_of(task, objects).pin_memory().to(devices.device))
            trainer.optimizer_step(schedule.lr)
            losses.append(values.read()["loss"])
            updates.append(weights(task) - before)
        assert not cuda.faults
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert updates[0].norm() > 0
    # Differences of nearly equal distances amplify rounding in the exemplar task.
    assert (updates[0] - updates[1]).norm() < 0.1 * updates[0].norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a real GPU has its own message")
def test_exhausted_memory_of_a_gpu_is_explained() -> None:
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 50, device=CUDA)
    assert "micro_batch_size" in str(advice_on(found.value))


def test_fit_on_a_gpu_equals_the_cpu(objects: Index, tmp_path: Path) -> None:
    """Values that are read a step late are all in the curve, also after an interruption."""
    schedule = Schedule(steps=7, batch_size=8, lr=0.01, precision="float32")
    curves = []
    for devices in (Devices(torch.device("cpu"), 0), GPU):
        task = small_task("jigsaw++", ResNet18(width_mult=0.125, img_size=48))
        folder = tmp_path / devices.device.type
        folder.mkdir()
        with on_gpu() as cuda:
            found = fit(task, objects, schedule, seed=0, folder=folder, devices=devices, val=objects)
        assert not cuda.faults
        curves.append([row["loss"] for row in found.curve])
    # channels_last adds in another order.
    assert len(curves[0]) == 7 and curves[0] == pytest.approx(curves[1], rel=2e-2)
    assert curves[0][:4] == pytest.approx(curves[1][:4], rel=1e-3)


@pytest.mark.parametrize("synchronous", [False, True])
def test_multi_task_training_runs_on_a_gpu(synchronous: bool, objects: Index, tmp_path: Path) -> None:
    first = small_task("rotation")
    second = small_task("rotation-crop", first.backbone)
    schedule = Schedule(steps=4, batch_size=8, lr=0.01)
    runs = [TaskRun(task, objects, schedule, 0, name=name) for name, task in (("a", first), ("b", second))]
    with on_gpu() as cuda:
        fit_multi_task(runs, 4, folder=tmp_path, devices=GPU, synchronous=synchronous)
    assert not cuda.faults
