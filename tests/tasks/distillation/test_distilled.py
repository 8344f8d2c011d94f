"""What all methods share that learn from a teacher: live and cached, killed, and on several devices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ssltransfer.artifacts.files import ArtifactError, file_digest
from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import CaffeNet, ResNet18
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.models.weights import read_model
from ssltransfer.stages import student
from ssltransfer.tasks.distillation import attention_transfer, distilled
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs, StudentTask
from ssltransfer.training.devices import Devices, plan_devices
from ssltransfer.training.fit import fit
from ssltransfer.training.train_step import Trainer
from tests.helpers import HELPERS
from tests.helpers.fake_cuda import batch_to_cuda, fake_cuda, move
from tests.helpers.pretended_cuda import CUDA, PretendCuda, on_gpu

from .conftest import ATTENTION, InputsMaker, spec_of

METHODS: dict[str, dict[str, Any]] = {
    "compress-1q": {"name": "compress-1q", "queue_size": 16},
    "compress-2q": {"name": "compress-2q", "queue_size": 16, "momentum": 0.9},
    "compress-batch": {"name": "compress-batch"},
    "regression": {"name": "regression"},
    "regression-bn": {"name": "regression", "bn": True},
    "crd": {"name": "crd", "embed_dim": 8, "num_negatives": 20},
    "feature-distillation": {"name": "feature-distillation", "head": "linear", "teacher_normalization": "whiten"},
}
each = pytest.mark.parametrize("name", METHODS)


def method_of(inputs: StudentInputs) -> StudentTask:
    return STUDENT_METHODS[type(inputs.spec.method)](inputs)


TRAINED = {
    **METHODS,
    "feature-distillation-maps": {
        "name": "feature-distillation",
        "map_weight": 0.5,
        "map_loss": "cosine+smooth-l1",
        "teacher_map_layer": "block3",
        "teacher_normalization": "standardize",
    },
    "attention-transfer": ATTENTION,  # which has no features, and a teacher of its own
}


@each
@pytest.mark.parametrize("cached", [False, True])
def test_distillation_exports_the_backbone_alone(
    name: str, cached: bool, teacher: Path, said: Path, objects_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "s" / "manifest.json"
    given: dict[str, Any] = {"features": said} if cached else {"teacher": teacher}
    spec = spec_of({**METHODS[name], "precompute_teacher": cached}, ResNet18(width_mult=0.125, img_size=64), steps=2)
    student.run(spec, data=objects_path, output=output, threads=1, **given)
    assert read_model(output).backbone.layers[-1] == "pool"
    tensors = safetensors.torch.load_file(output.parent / "backbone.safetensors")
    assert not [key for key in tensors if "queue" in key or "momentum" in key or "memory" in key or "head" in key]
    assert {"loss", "chance_loss"} <= json.loads(output.read_text())["summary"].keys()


@each
def test_precomputed_teacher_equals_online_teacher(name: str, make_given: InputsMaker, objects: Index) -> None:
    """The store holds the live teacher's features of the central crop as float16."""
    values = []
    for cached in (False, True):
        # A backbone with the teacher's own view: CaffeNet's short side is another one.
        given = make_given(
            {**METHODS[name], "precompute_teacher": cached, "augment": "none"}, ResNet18(width_mult=0.125, img_size=64)
        )
        task: Any = method_of(given).train()
        batch = next(load_batches(objects, task.transform, sequential_keys(range(16), 16), seed=0))
        torch.manual_seed(0)
        values.append(
            (task.teacher_features(batch, task.views(batch, batch.rng(0))), task(batch, batch.rng(0))["loss"])
        )
    (live, loss), (cached_said, cached_loss) = values
    assert torch.allclose(live, cached_said, rtol=2e-3, atol=1e-3)
    assert loss.item() == pytest.approx(cached_loss.item(), rel=2e-2)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"regression-bn", "compress-batch"}))  # by the micro-batch
def test_distillation_update_ignores_micro_batches(
    name: str, make_given: InputsMaker, objects: Index, tmp_path: Path
) -> None:
    """Queues, memories and weights do not depend on micro-batches, where no batch norm does."""
    after = []
    for micro in (None, 8):
        given = make_given({**METHODS[name], "augment": "none"}, steps=3, micro_batch_size=micro, lr=0.001)
        task: Any = method_of(given)
        if name == "crd":
            task.constants.fill_(30.0)  # else estimated from the first pass
        fit(task, objects, given.spec.schedule, seed=0, folder=tmp_path / str(micro), devices=plan_devices(1))
        after.append(task.state_dict())
    for key, value in after[0].items():
        assert torch.allclose(value, after[1][key], rtol=1e-3, atol=1e-5), key


def test_precomputed_features_of_other_images_are_refused(said: Path, objects_val_path: Path, tmp_path: Path) -> None:
    spec = spec_of({**METHODS["compress-1q"], "precompute_teacher": True})
    with pytest.raises(ArtifactError, match="belong to another index"):
        student.run(spec, data=objects_val_path, features=said, output=tmp_path / "m.json", threads=1)


@pytest.mark.parametrize("size", [48, 64])
@pytest.mark.parametrize("name", TRAINED)
def test_student_trains_on_a_pretended_gpu(name: str, size: int, teacher_of: Path, make_given: InputsMaker) -> None:
    """With a teacher of the same input size and of another."""
    backbone = CaffeNet(width_mult=0.125, img_size=size, stem_stride=2)
    given = make_given(TRAINED[name], backbone=backbone, teacher=teacher_of)
    task: Any = method_of(given)
    batches = list(load_batches(given.index, task.transform, sequential_keys(range(32), 16), seed=0))
    with PretendCuda() as cuda:
        trainer = Trainer(task, Schedule(steps=3, batch_size=16, lr=0.01), 0, Devices(CUDA, 0))
        for step, batch in enumerate(batches):
            cuda.reset()
            trainer.forward_backward(batch.pin_memory().to(CUDA))
            trainer.optimizer_step(0.01)
            task.after_step(step)
    assert not cuda.faults and not cuda.waits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", sorted({*TRAINED} - {"crd"}))  # values decide what CRD computes
def test_loss_of_student_is_float32_under_autocast_of_a_gpu(
    name: str, dtype: torch.dtype, teacher_of: Path, make_given: InputsMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = make_given(TRAINED[name], teacher=teacher_of)
    task: Any = method_of(given)
    batch = next(load_batches(given.index, task.transform, sequential_keys(range(16), 16), seed=0))
    for module in (distilled, attention_transfer):
        monkeypatch.setattr(module, "move", lambda teacher, device: move(teacher))
    with fake_cuda(dtype) as mode:
        move(task)
        batch = batch_to_cuda(mode, batch)
        outputs = task(batch, batch.rng(0))
    assert {(value.dtype, value.device) for value in outputs.values()} == {(torch.float32, CUDA)}


@pytest.mark.gpu
@pytest.mark.parametrize("name", TRAINED)
def test_student_update_on_a_gpu_equals_the_cpu(name: str, teacher_of: Path, make_given: InputsMaker) -> None:
    """In float32, with a live teacher."""
    schedule = Schedule(steps=1, batch_size=16, lr=0.01, precision="float32")
    losses, updates = [], []
    for devices in (Devices(torch.device("cpu"), 0), Devices(CUDA, 0)):
        given = make_given(TRAINED[name], teacher=teacher_of)
        task: Any = method_of(given)
        batch = next(load_batches(given.index, task.transform, sequential_keys(range(16), 16), seed=0))
        before = torch.cat([parameter.detach().flatten().clone() for parameter in task.parameters()])
        with on_gpu() as cuda:
            trainer = Trainer(task, schedule, 0, devices)
            losses.append(trainer.forward_backward(batch.pin_memory().to(devices.device)).read()["loss"])
            trainer.optimizer_step(schedule.lr)
            after = torch.cat([parameter.detach().cpu().flatten() for parameter in task.parameters()])
        assert not cuda.faults
        updates.append(after - before)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert updates[0].norm() > 0 and (updates[0] - updates[1]).norm() < 0.1 * updates[0].norm()


def test_online_teacher_resizes_the_view(make_given: InputsMaker) -> None:
    given = make_given(
        {"name": "compress-1q", "queue_size": 8}, backbone=CaffeNet(width_mult=0.125, img_size=48, stem_stride=2)
    )
    task: Any = method_of(given).train()
    batch = next(load_batches(given.index, task.transform, sequential_keys(range(4), 4), seed=0))
    views = task.views(batch, batch.rng(0))
    assert views.shape[-1] == 48 and task.teacher_features(batch, views).shape == (4, 64)


@pytest.fixture
def teacher_of(name: str, teacher: Path, solver: Path) -> Path:
    """One that the method can learn from."""
    return solver if name == "attention-transfer" else teacher


def command(name: str, teacher: Path, data: Path, output: Path, *more: str, **schedule: Any) -> list[str]:
    spec = spec_of(TRAINED[name], **schedule)
    words = ["--spec", spec.canonical(), "--data", str(data), "--teacher", str(teacher), "--output", str(output)]
    return [sys.executable, "-m", "ssltransfer.cli", "student", *words, "--threads", "1", *more]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_student_killed_and_resumed_gives_the_same_bytes(
    name: str, teacher_of: Path, objects_path: Path, tmp_path: Path
) -> None:
    """Queues, slow copies, memories and constants are in the checkpoint."""
    whole, broken = tmp_path / "whole" / "manifest.json", tmp_path / "broken" / "manifest.json"
    subprocess.run(command(name, teacher_of, objects_path, whole, steps=12), check=True, capture_output=True)
    environment = {**os.environ, "SSLTRANSFER_CHECKPOINT_STEPS": "5", "SSLTRANSFER_TEST_DIE_AT": "7"}
    driver = HELPERS / "killed_student.py"
    words = command(name, teacher_of, objects_path, broken, steps=12)
    process = subprocess.run([sys.executable, str(driver), *words[3:]], env=environment, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert list(broken.parent.glob("work/*/checkpoint.pt")) and not broken.exists()
    again = subprocess.run(words, capture_output=True, text=True)
    assert again.returncode == 0 and "resuming from step" in again.stdout, again.stdout + again.stderr
    for file in ("manifest.json", "backbone.safetensors", "curve.jsonl"):
        assert file_digest(broken.parent / file) == file_digest(whole.parent / file)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["compress-1q", "compress-2q", "crd", "regression", "feature-distillation", "attention-transfer"]
)
def test_student_on_two_processes_equals_one(name: str, teacher_of: Path, objects_path: Path, tmp_path: Path) -> None:
    """Queues are filled by both, in the order of the whole batch."""
    found = []
    for devices in ("1", "2"):
        output = tmp_path / devices / "manifest.json"
        words = command(name, teacher_of, objects_path, output, "--devices", devices, steps=8, lr=0.001)
        run = subprocess.run(words, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        found.append(safetensors.torch.load_file(output.parent / "backbone.safetensors"))
    for key, value in found[0].items():
        assert torch.allclose(value, found[1][key], rtol=1e-3, atol=1e-5), key
