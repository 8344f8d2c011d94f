"""Students that learn labels: what they learn and export, and the bytes of a training that was killed."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ssltransfer.artifacts.files import ArtifactError, file_digest
from ssltransfer.artifacts.index import Index, write_index
from ssltransfer.artifacts.labels import Labels, write_labels
from ssltransfer.config import schedule as schedule_module
from ssltransfer.config.backbones import AlexNet, AnyBackbone, CaffeNet, ResNet18
from ssltransfer.config.entities import Student
from ssltransfer.config.methods import ClusterClassification, Supervised
from ssltransfer.config.schedule import Schedule
from ssltransfer.models.weights import read_model
from ssltransfer.stages import student
from ssltransfer.tasks.supervised import Classifier
from ssltransfer.training.task import TrainingError

BACKBONE = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2)
CC = ClusterClassification(cluster="k3")


def spec(backbone: AnyBackbone = BACKBONE, *, steps: int = 4, supervised: bool = False, lr: float = 0.01) -> Student:
    method = Supervised() if supervised else CC
    return Student(
        method=method, data="objects", backbone=backbone, schedule=Schedule(steps=steps, batch_size=16, lr=lr)
    )


def test_classifier_exports_the_backbone_alone(objects_path: Path, labels_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "cc" / "manifest.json"
    student.run(spec(), data=objects_path, labels=labels_path, output=output, threads=1)
    tensors = safetensors.torch.load_file(output.parent / "backbone.safetensors")
    assert not [name for name in tensors if "head" in name or "labels" in name]
    model = read_model(output)
    assert model.backbone.layers == ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
    assert model.normalization == "imagenet" and model.view.size == 64
    manifest = json.loads(output.read_text())
    assert manifest["summary"]["chance_loss"] == pytest.approx(math.log(3))
    assert manifest["curve"] == file_digest(output.parent / "curve.jsonl")
    assert "seconds" not in manifest and "seconds" in json.loads((output.parent / "run.json").read_text())
    assert not list(output.parent.glob("work/*/checkpoint.pt"))


def test_manifest_states_the_schedule_of_auto(
    objects_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule_module, "MOST_EPOCHS", 1)
    monkeypatch.setattr(schedule_module, "AUTO_EPOCHS", 1)
    output = tmp_path / "sup" / "manifest.json"
    given = spec(supervised=True).model_copy(update={"schedule": Schedule(epochs="auto", batch_size=32, lr=0.01)})
    student.run(given, data=objects_path, output=output, threads=1)
    manifest = json.loads(output.read_text())
    assert manifest["schedule"] == {"steps": 3, "batch_size": 16, "warmup": 0.06}
    assert manifest["summary"]["step"] == 3 and manifest["spec"]["schedule"]["epochs"] == "auto"


def test_student_weights_load_in_torchvision(objects_path: Path, tmp_path: Path) -> None:
    """A backbone whose architecture is torchvision's needs nothing of this package."""
    import torchvision

    output = tmp_path / "sup" / "manifest.json"
    student.run(spec(ResNet18(img_size=32), steps=1, supervised=True), data=objects_path, output=output, threads=1)
    tensors = safetensors.torch.load_file(output.parent / "backbone.safetensors")
    network = torchvision.models.resnet18()
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and not unexpected
    x = torch.randn(2, 3, 32, 32)
    network.fc = torch.nn.Identity()
    network.eval().to(memory_format=torch.channels_last)
    assert torch.allclose(network(x), read_model(output).backbone(x)["pool"], atol=1e-5)


@pytest.mark.parametrize(
    "backbone", [BACKBONE, AlexNet(width_mult=0.125, img_size=96), ResNet18(width_mult=0.125, img_size=64)]
)
def test_classifier_starts_at_chance_and_learns(backbone: AnyBackbone, objects: Index, tmp_path: Path) -> None:
    """48 images with arbitrary labels can be learned by heart; the first loss is about ln K."""
    from ssltransfer.training.devices import plan_devices
    from ssltransfer.training.fit import fit

    labels = (np.arange(len(objects)) % 3).astype(np.int32)
    method = ClusterClassification(cluster="x", augment="crop", dropout=0.0)
    schedule = Schedule(steps=80, batch_size=16, lr=0.001, weight_decay=0, optimizer="adam")
    task = Classifier(Student(method=method, data="o", backbone=backbone, schedule=schedule), 3)
    labeled = objects.with_labels(labels, list("abc"))
    fitted = fit(task, labeled, schedule, seed=0, folder=tmp_path, devices=plan_devices(1))
    losses = [row["loss"] for row in fitted.curve]
    assert losses[0] == pytest.approx(math.log(3), abs=0.2)
    assert np.mean(losses[-5:]) < 0.7 * math.log(3)


def test_cluster_classification_refuses_labels_of_another_index(
    objects_path: Path, objects_val_path: Path, labels_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="belong to another index"):
        student.run(spec(), data=objects_val_path, labels=labels_path, output=labels_path.parent / "m.json", threads=1)
    assert not (labels_path.parent / "m.json").exists()


def test_cluster_classification_refuses_one_cluster(objects: Index, objects_path: Path, tmp_path: Path) -> None:
    zeros = np.zeros(len(objects))
    labels = Labels(objects.paths, zeros.astype(np.int32), zeros.astype(np.float32), 3, objects.fingerprint, "x")
    write_labels(tmp_path / "l.parquet", labels)
    with pytest.raises(ArtifactError, match="all images are in one cluster"):
        student.run(spec(), data=objects_path, labels=tmp_path / "l.parquet", output=tmp_path / "m.json", threads=1)


def test_supervised_matches_validation_classes_by_name(objects: Index, objects_path: Path, tmp_path: Path) -> None:
    """The same images, in a set that lacks the first class, give the same validation values."""
    ids = np.flatnonzero(objects.labels > 0)
    part = objects.subset(ids)
    write_index(tmp_path / "same.parquet", part)
    write_index(tmp_path / "fewer.parquet", part.with_labels(part.labels - 1, part.classes[1:]))
    write_index(tmp_path / "more.parquet", part.with_labels(part.labels, [*part.classes[:-1], "unicorn"]))
    curves = []
    for name in ("same", "fewer"):
        output, val = tmp_path / name / "manifest.json", tmp_path / f"{name}.parquet"
        student.run(spec(steps=2, supervised=True), data=objects_path, val=val, output=output, threads=1)
        curves.append((output.parent / "curve.jsonl").read_text())
    assert "val_accuracy" in curves[0] and curves[0] == curves[1]
    with pytest.raises(ArtifactError, match="class 'unicorn' is not in the training set objects"):
        val = tmp_path / "more.parquet"
        student.run(
            spec(supervised=True), data=objects_path, val=val, output=tmp_path / "more" / "manifest.json", threads=1
        )
    write_index(tmp_path / "none.parquet", objects.with_labels(np.full(len(objects), -1), []))
    with pytest.raises(ArtifactError, match="objects: not every image has a class label"):
        student.run(
            spec(supervised=True), data=tmp_path / "none.parquet", output=tmp_path / "none" / "m.json", threads=1
        )


def test_student_stops_at_a_loss_that_is_not_finite(objects_path: Path, labels_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "cc" / "manifest.json"
    with pytest.raises(TrainingError, match=r"not finite at step \d+ .*lower the learning rate"):
        student.run(spec(lr=1e12, steps=20), data=objects_path, labels=labels_path, output=output, threads=1)
    assert not output.exists() and not (output.parent / "backbone.safetensors").exists()


def command(data: Path, labels: Path, output: Path, steps: int) -> list[str]:
    given = {"--spec": spec(steps=steps).canonical(), "--data": data, "--labels": labels, "--output": output}
    words = [str(word) for pair in given.items() for word in pair]
    return [sys.executable, "-m", "ssltransfer.cli", "student", *words, "--threads", "1"]


def bytes_of(folder: Path) -> dict[str, str]:
    return {name: file_digest(folder / name) for name in ("manifest.json", "backbone.safetensors", "curve.jsonl")}


@pytest.mark.slow
def test_student_killed_at_any_step_gives_the_same_bytes(objects_path: Path, labels_path: Path, tmp_path: Path) -> None:
    """SIGKILL, again and again, with a checkpoint every second step; also SIGTERM, which saves first."""
    steps = 60
    whole, broken = tmp_path / "whole" / "manifest.json", tmp_path / "broken" / "manifest.json"
    subprocess.run(command(objects_path, labels_path, whole, steps), check=True, capture_output=True)
    environment = {**os.environ, "SSLTRANSFER_CHECKPOINT_STEPS": "2"}
    done: list[float] = []
    for kill in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, None):
        process = subprocess.Popen(
            command(objects_path, labels_path, broken, steps), env=environment, stdout=subprocess.PIPE, text=True
        )
        if kill is not None:
            wait_for_checkpoint(broken.parent, after=done[-1] if done else 0.0)
            process.send_signal(kill)
        said, _ = process.communicate(timeout=300)
        done.append(max((file.stat().st_mtime for file in broken.parent.glob("work/*/checkpoint.pt")), default=0.0))
        assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, None: 0}[kill], said
    assert "resuming from step" in said
    assert bytes_of(broken.parent) == bytes_of(whole.parent)


def wait_for_checkpoint(folder: Path, *, after: float) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if any(file.stat().st_mtime > after for file in folder.glob("work/*/checkpoint.pt")):
            return
        time.sleep(0.01)
    raise AssertionError("no checkpoint was written")


@pytest.mark.slow
def test_student_refuses_a_second_copy(objects_path: Path, labels_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "cc" / "manifest.json"
    environment = {**os.environ, "SSLTRANSFER_CHECKPOINT_STEPS": "1"}
    first = subprocess.Popen(command(objects_path, labels_path, output, 400), env=environment)
    try:
        wait_for_checkpoint(output.parent, after=0.0)
        second = subprocess.run(command(objects_path, labels_path, output, 400), capture_output=True, text=True)
    finally:
        first.kill()
        first.wait()
    assert second.returncode == 1
    assert "another copy of this job is running" in second.stderr and f"process {first.pid}" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
