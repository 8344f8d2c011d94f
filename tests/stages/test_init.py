"""Trainings that start from the weights of another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ssltransfer.artifacts.files import ArtifactError, file_digest, read_json
from ssltransfer.artifacts.index import read_index
from ssltransfer.config.backbones import ResNet18
from ssltransfer.config.entities import Pretext, Student
from ssltransfer.models.build import build_backbone
from ssltransfer.models.export import export, init_of, teachers_of
from ssltransfer.models.weights import read_model, start_from, write_weights
from ssltransfer.stages import pretext, student
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs
from ssltransfer.training import checkpoint as checkpoint_module
from ssltransfer.training.devices import plan_devices

BACKBONE = {"name": "caffenet", "width_mult": 0.125, "img_size": 48, "stem_stride": 2}
STILL = {"steps": 1, "batch_size": 8, "lr": 1e-60}  # zero in float32
TRAINED = {"steps": 4, "batch_size": 8, "lr": 0.01}
SUPERVISED = {"name": "supervised", "dropout": 0}
ROTATION = {"name": "rotation", "hidden_dim": 16, "augment": "crop"}


def student_of(schedule: dict[str, Any], backbone: dict[str, Any] = BACKBONE, **more: Any) -> Student:
    content = {"method": SUPERVISED, "data": "d", "backbone": backbone, "schedule": schedule}
    return Student.model_validate(content | more)


def pretext_of(task: dict[str, Any] | str, **more: Any) -> Pretext:
    return Pretext.model_validate({"task": task, "backbone": BACKBONE, **more})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A random network with its fully-connected layers."""
    pretext.run(pretext_of("random", seed=3), output=tmp_path / "pretext/source/manifest.json", threads=1)
    return tmp_path / "pretext/source/manifest.json"


def weights(manifest: Path) -> bytes:
    return (manifest.parent / "backbone.safetensors").read_bytes()


def test_init_without_training_keeps_the_bytes_of_the_backbone(tmp_path: Path, source: Path, objects_path: Path):
    output = tmp_path / "student/still/manifest.json"
    student.run(student_of(STILL, init="source"), output=output, data=objects_path, init=source, threads=1)
    assert weights(output) == weights(source)
    manifest = read_json(output)
    assert manifest["init"] == read_json(source)["weights"] == file_digest(source.parent / "backbone.safetensors")
    assert manifest["inputs"]["init"] == [file_digest(source)]
    assert init_of(output) == source and teachers_of(output) == []
    export(output, tmp_path / "still.pth")
    assert "- Initial weights: `source`, caffenet, " in (tmp_path / "still.pth.md").read_text()
    moved = tmp_path / "student/moved/manifest.json"
    student.run(student_of(TRAINED, init="source"), output=moved, data=objects_path, init=source, threads=1)
    assert weights(moved) != weights(source)


def test_init_of_a_pretext_drops_the_layers_that_it_lacks(tmp_path: Path, source: Path, objects_path: Path):
    spec = pretext_of(ROTATION, data="d", schedule=STILL, init="source")
    output = tmp_path / "pretext/still/manifest.json"
    pretext.run(spec, output=output, data=objects_path, init=source, threads=1)
    given, found = (read_model(one).backbone.state_dict() for one in (source, output))
    assert found.keys() < given.keys()
    assert all(value.equal(given[name]) for name, value in found.items())
    # The other way round, the fully-connected layers are random.
    back = tmp_path / "student/back/manifest.json"
    student.run(student_of(STILL, init="still"), output=back, data=objects_path, init=output, threads=1)
    again = read_model(back).backbone.state_dict()
    assert again.keys() == given.keys()
    assert all(value.equal(again[name]) for name, value in found.items())
    assert not again["fc6.weight"].equal(given["fc6.weight"])


def test_init_takes_the_normalization_of_its_source(tmp_path: Path, source: Path, objects_path: Path):
    copied = tmp_path / "half.safetensors"  # a file of others: no backbone.json beside it
    copied.write_bytes(weights(source))
    task = {"name": "imported", "file": str(copied), "normalize": "half"}
    imported = tmp_path / "pretext/half/manifest.json"
    pretext.run(pretext_of(task), output=imported, threads=1)
    output = tmp_path / "student/half/manifest.json"
    student.run(student_of(STILL, init="half"), output=output, data=objects_path, init=imported, threads=1)
    assert read_json(output)["normalize"] == "half"


def test_init_refuses_another_size(tmp_path: Path, source: Path, objects_path: Path):
    wide = BACKBONE | {"width_mult": 0.25}
    with pytest.raises(ArtifactError, match=r"a caffenet-w0.125.*, whose weights do not fit a caffenet-w0.25"):
        student.run(
            student_of(STILL, wide, init="source"),
            output=tmp_path / "student/wide/manifest.json",
            data=objects_path,
            init=source,
            threads=1,
        )


def test_init_resumes_with_the_same_bytes(
    tmp_path: Path, source: Path, objects_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = student_of(TRAINED, init="source")
    whole = tmp_path / "student/whole/manifest.json"
    student.run(spec, output=whole, data=objects_path, init=source, threads=1)
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "2")
    save = checkpoint_module.Checkpoint.save

    def killed(self: Any, state: dict[str, Any], step: int) -> None:
        save(self, state, step)
        raise KeyboardInterrupt

    cut = tmp_path / "student/cut/manifest.json"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoint_module.Checkpoint, "save", killed)
        student.run(spec, output=cut, data=objects_path, init=source, threads=1)
    student.run(spec, output=cut, data=objects_path, init=source, threads=1)
    assert weights(cut) == weights(whole)


def test_init_reaches_the_momentum_encoder(tmp_path: Path, source: Path, objects_path: Path):
    index = read_index(objects_path)
    method = {"name": "compress-2q", "teacher": "source", "queue_size": 8}
    task = STUDENT_METHODS[type(student_of(STILL, method=method).method)](
        StudentInputs(student_of(STILL, method=method), index, teacher=source)
    )
    start_from(task.backbone, source)
    task.on_train_start(index, plan_devices(1))
    encoder = task.momentum_encoder["backbone"]  # type: ignore[index]
    write_weights(tmp_path / "slow.safetensors", encoder)  # type: ignore[arg-type]
    assert (tmp_path / "slow.safetensors").read_bytes() == weights(source)


def test_init_leaves_the_representation_random(tmp_path: Path):
    """A model without `embed_dim` starts one that has it."""
    source = tmp_path / "pretext/source/manifest.json"
    options = ResNet18(width_mult=0.125, img_size=64)
    spec = Pretext.model_validate({"task": "random", "backbone": options.model_dump(), "seed": 3})
    pretext.run(spec, output=source, threads=1)
    given = read_model(source).backbone
    backbone = build_backbone(options.model_copy(update={"embed_dim": 8}), include_top=False, seed=4)
    before = backbone.get_parameter("representation.weight").clone()
    start_from(backbone, source)
    assert torch.equal(backbone.get_parameter("representation.weight"), before)
    assert all(torch.equal(backbone.state_dict()[name], value) for name, value in given.state_dict().items())


def test_spec_without_init_keeps_its_canonical_text():
    assert "init" not in student_of(TRAINED).canonical()
    assert "init" not in pretext_of("random").canonical()
    with pytest.raises(ValueError, match="task random is not trained and has no initial weights; remove `init`"):
        pretext_of("random", init="source")
