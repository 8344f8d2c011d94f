"""A teacher, its features of the images, and inputs of students that use either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.backbones import AnyBackbone, CaffeNet, ResNet18, Vgg16
from ssltransfer.config.entities import Features, Student
from ssltransfer.config.methods import AnyMethod
from ssltransfer.config.schedule import Schedule
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import write_model
from ssltransfer.stages import features
from ssltransfer.tasks.student import StudentInputs

TEACHER = ResNet18(width_mult=0.125, img_size=64)
SMALL = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2)
InputsMaker = Callable[..., StudentInputs]
# A small puzzle, without dropout, which differs by micro-batches and devices; maps of other sides than the teacher's.
ATTENTION: dict[str, Any] = {
    "name": "attention-transfer",
    "task": {
        "name": "jigsaw++",
        "permutations": 6,
        "resize": 96,
        "tiles": {"crop": 84, "tile": 24, "jitter": 3, "channel_shift": 1, "stem_stride": 1},
        "hidden_dim": 16,
        "dropout": 0,
    },
    "layers": ["conv4", "conv5"],
    "teacher_layers": ["conv3_3", "conv3_2"],
}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a random ResNet-18 of width 1/8 with 64 features per image."""
    manifest = tmp_path_factory.mktemp("teacher") / "teacher" / "manifest.json"
    with WorkDir("pretext", manifest, "{}", {}) as work:
        work.finish(write_model(manifest.parent, build_backbone(TEACHER, include_top=True, seed=5), "half", {}))
    return manifest


@pytest.fixture(scope="session")
def solver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a random VGG16, which might have solved puzzles."""
    manifest = tmp_path_factory.mktemp("solver") / "solver" / "manifest.json"
    backbone = build_backbone(Vgg16(width_mult=0.125, img_size=64), include_top=True, seed=5)
    with WorkDir("pretext", manifest, "{}", {}) as work:
        work.finish(write_model(manifest.parent, backbone, "per-image", {}))
    return manifest


@pytest.fixture(scope="session")
def said(teacher: Path, objects_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of the teacher's features of the central crops of `objects`."""
    output = tmp_path_factory.mktemp("said") / "manifest.json"
    features.run(Features(model="t", layer="pool"), model=teacher, data=objects_path, output=output, threads=1)
    return output


@pytest.fixture
def make_given(teacher: Path, said: Path, objects_path: Path) -> InputsMaker:
    """make_given({"name": "compress-1q", ...}, backbone=..., schedule=...) -> what the stage would give the method."""

    standing = teacher

    def make(
        method: dict[str, Any], backbone: AnyBackbone = SMALL, seed: int = 0, teacher: Path = standing, **schedule: Any
    ) -> StudentInputs:
        source: dict[str, Any] = {"features": said} if method.get("precompute_teacher") else {"teacher": teacher}
        return StudentInputs(spec_of(method, backbone, seed, **schedule), read_index(objects_path), **source)

    return make


def spec_of(method: dict[str, Any], backbone: AnyBackbone = SMALL, seed: int = 0, **schedule: Any) -> Student:
    """A student of that method, learning from `objects`."""
    options: Any = TypeAdapter(AnyMethod).validate_python({"teacher": "t", **method})
    return Student(
        method=options,
        data="o",
        backbone=backbone,
        seed=seed,
        schedule=Schedule(**{"steps": 4, "batch_size": 16, **schedule}),
    )
