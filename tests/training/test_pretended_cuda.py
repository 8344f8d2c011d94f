"""Every task trains on a pretended GPU: no operator fails there, and a step waits and launches little."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch.utils.data._utils.pin_memory import pin_memory

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, ResNet18
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.tasks import AnyTask
from ssltransfer.data.loader import Batch
from ssltransfer.tasks.pretext.base import PretextTask, build_task
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit
from ssltransfer.training.multi_task import TaskRun, fit_multi_task
from ssltransfer.training.train_step import Trainer
from tests.helpers.pretended_cuda import CUDA, PretendCuda
from tests.helpers.small_tasks import TASKS

GPU = Devices(CUDA, 0)
SMALL = CaffeNet(width_mult=0.125, img_size=48, stem_stride=2)
# At most this many kernels in a step, about 10 % more than counted: no loop over images or draws.
LAUNCHES = {
    **{"jigsaw": 205, "jigsaw++": 215, "jigsaw-kolesnikov": 205, "gray patches": 205, "relative-patch-location": 205},
    **{"exemplar": 555, "exemplar-batch": 555, "drop": 385, "project": 350, "residual": 520, "harmonized": 520},
    **{"rotation": 185, "rotation-inception": 480, "rotation-crop": 190, "colorization": 250, "exemplar-patches": 940},
}


def build(name: str, backbone: BackboneOptions = SMALL) -> PretextTask:
    options: Any = TypeAdapter(AnyTask).validate_python(TASKS[name])
    return build_task(options, backbone, 0)


@pytest.mark.parametrize("name", TASKS)
def test_pretext_task_trains_on_a_pretended_gpu(name: str, objects: Index) -> None:
    task = build(name)
    image = torch.randint(0, 256, (3, 90, 100), dtype=torch.uint8)
    parts = [task.transform(objects, 0, image, Random(i)) for i in range(8)]
    batch = Batch(torch.stack([p["image"] for p in parts]), torch.arange(8), torch.zeros(8, dtype=torch.int64))
    with PretendCuda() as cuda:
        trainer = Trainer(task, Schedule(steps=3, batch_size=8, lr=0.01), 0, GPU)
        before = trainer.forward_backward(batch.pin_memory().to(CUDA))
        trainer.optimizer_step(0.01)
        task.after_step(0)
        cuda.reset()  # constants are on the device now
        trainer.forward_backward(batch.pin_memory().to(CUDA))
        trainer.optimizer_step(0.01)
        task.after_step(1)
        loss = before.read()["loss"]
    assert not cuda.faults
    assert loss == pytest.approx(task.chance_loss, abs=1)
    assert list(cuda.waits.values()) == [1], "for the values of the step before"
    assert cuda.launches <= LAUNCHES[name]


def test_pretended_gpu_finds_faults() -> None:
    with PretendCuda() as cuda:
        images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8).to("cuda")
        torch.nn.functional.interpolate(images, (6, 6), mode="bilinear", antialias=True)
        images.float() + torch.ones(8)
        bool(images.sum() > 0)
    assert [fault.split(": ")[1] for fault in cuda.faults] == ["aten::_upsample_bilinear2d_aa", "aten::add"]
    assert len(cuda.waits) == 2, "a pageable copy, and the truth of a tensor"


def test_batches_are_pinned_and_keep_their_keys_on_the_cpu() -> None:
    image = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    batch = Batch(image, torch.arange(2), torch.zeros(2), {"label": torch.arange(2)}, torch.ones(2, 2))
    with PretendCuda() as cuda:
        pinned = pin_memory(batch)  # as torch's loader does it
        moved = pinned.to(CUDA)
        assert moved.images.is_cuda and moved.targets["label"].is_cuda
        assert not (moved.ids.is_cuda or moved.epochs.is_cuda or moved.sizes.is_cuda)
    assert not cuda.waits and len(cuda.copied) == 2


def test_fit_on_a_pretended_gpu_equals_the_cpu(objects: Index, tmp_path: Path) -> None:
    """Values that are read a step late are all in the curve, also after an interruption."""
    schedule = Schedule(steps=7, batch_size=8, lr=0.01, precision="float32")
    curves = []
    for devices in (Devices(torch.device("cpu"), 0), GPU):
        task = build("jigsaw++", ResNet18(width_mult=0.125, img_size=48))
        folder = tmp_path / devices.device.type
        folder.mkdir()
        with PretendCuda() as cuda:
            found = fit(task, objects, schedule, seed=0, folder=folder, devices=devices, val=objects)
        assert not cuda.faults
        curves.append([row["loss"] for row in found.curve])
    # channels_last adds in another order.
    assert len(curves[0]) == 7 and curves[0] == pytest.approx(curves[1], rel=5e-3)
    assert curves[0][:4] == pytest.approx(curves[1][:4], rel=1e-5)


@pytest.mark.parametrize("synchronous", [False, True])
def test_multi_task_training_runs_on_a_pretended_gpu(synchronous: bool, objects: Index, tmp_path: Path) -> None:
    first = build("rotation")
    second = build_task(TypeAdapter(AnyTask).validate_python(TASKS["rotation-crop"]), first.backbone, 1)
    schedule = Schedule(steps=4, batch_size=8, lr=0.01)
    runs = [TaskRun(task, objects, schedule, 0, name=name) for name, task in (("a", first), ("b", second))]
    with PretendCuda() as cuda:
        fit_multi_task(runs, 4, folder=tmp_path, devices=GPU, synchronous=synchronous)
    assert not cuda.faults
