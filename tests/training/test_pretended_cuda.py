"""Every task trains on a pretended GPU: no operator fails there, and a step waits and launches little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from ssltransfer.artifacts.index import Index
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit
from ssltransfer.training.train_step import Trainer
from tests.helpers import HELPERS
from tests.helpers.pretended_cuda import CUDA, PretendCuda
from tests.helpers.small_tasks import TASKS, batch_of, small_task

GPU = Devices(CUDA, 0)
# At most this many kernels in a step, about 10 % more than counted: no loop over images or draws.
LAUNCHES = {
    **{"jigsaw": 205, "jigsaw++": 215, "jigsaw-kolesnikov": 205, "gray patches": 205, "relative-patch-location": 205},
    **{"exemplar": 555, "exemplar-batch": 555, "drop": 385, "project": 350, "residual": 520, "harmonized": 520},
    **{"rotation": 185, "rotation-inception": 480, "rotation-crop": 190, "colorization": 250, "exemplar-patches": 940},
}


@pytest.mark.parametrize("name", TASKS)
def test_pretext_task_trains_on_a_pretended_gpu(name: str, objects: Index) -> None:
    task = small_task(name)
    batch = batch_of(task, objects)
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
        moved = pinned.to(CUDA, GPU.copies)
        assert moved.images.is_cuda and moved.targets["label"].is_cuda
        assert not (moved.ids.is_cuda or moved.epochs.is_cuda or moved.sizes.is_cuda)
    assert not cuda.waits and len(cuda.copied) == cuda.aside == 2


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")
def test_training_copies_batches_beside_the_work_of_the_gpu(objects: Index, tmp_path: Path) -> None:
    schedule = Schedule(steps=3, batch_size=8, lr=0.01)
    with PretendCuda() as cuda:
        fit(small_task("rotation"), objects, schedule, seed=0, folder=tmp_path, devices=GPU)
    assert not cuda.faults
    assert cuda.aside == 3 * 2, "images and class labels of three batches"


@pytest.mark.slow
def test_operators_of_all_tasks_have_cuda_kernels_by_the_table_of_torch(objects: Index) -> None:
    """torch's own table of operators and the dtypes of their CUDA kernels, where it lists an operator."""
    run = subprocess.run([sys.executable, str(HELPERS / "cuda_kernels.py")], capture_output=True, text=True, check=True)
    kernels = json.loads(run.stdout)
    seen: set[tuple[str, str]] = set()
    for name in TASKS:
        task = small_task(name)
        with PretendCuda() as cuda:
            trainer = Trainer(task, Schedule(steps=1, batch_size=8, lr=0.01), 0, GPU)
            trainer.forward_backward(batch_of(task, objects).pin_memory().to(CUDA))
        seen |= {(operator.removeprefix("aten::").rstrip("_"), str(dtype)) for operator, dtype in cuda.dtypes}
    listed = [(name, dtype) for name, dtype in sorted(seen) if name in kernels]
    assert len(listed) > 60
    assert not [f"{name} of {dtype}" for name, dtype in listed if dtype not in kernels[name]]
    assert "torch.uint8" not in kernels["_upsample_bilinear2d_aa"], "the table finds the fault that PretendCuda finds"
