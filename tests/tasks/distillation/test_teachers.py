"""Every method learns from every kind of teacher, asked live and read from a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from ssltransfer.artifacts.files import read_json
from ssltransfer.config.backbones import Timm
from ssltransfer.config.entities import EvaluationSpec, Features, Pretext
from ssltransfer.config.protocols import Pool
from ssltransfer.stages import evaluate, features, pretext, student
from tests.helpers.protocol_inputs import make_model

from .conftest import spec_of

SMALL = {"name": "caffenet", "width_mult": 0.125, "img_size": 64, "stem_stride": 2}
METHODS: dict[str, dict[str, Any]] = {
    "compress-1q": {"queue_size": 40},
    "compress-2q": {"queue_size": 40},
    "regression": {"bn": True},
    "crd": {"embed_dim": 8, "num_negatives": 20},
    "feature-distillation": {},
}
# Layer, and its pooling where it is a map.
KINDS: dict[str, tuple[str, Pool | None]] = {
    "pretext": ("conv5", Pool(max=2)),
    "student": ("fc7", None),
    "file": ("pool", None),
    "library": ("pool", None),
}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory, objects_path: Path) -> dict[str, Path]:
    """A manifest of each kind: trained a step here, a file in torchvision's names, a library network."""
    root = tmp_path_factory.mktemp("teachers")
    found = {kind: root / kind / "manifest.json" for kind in KINDS}
    steps = {"steps": 1, "batch_size": 8, "lr": 0.01}
    given = {"task": {"name": "rotation", "hidden_dim": 8}, "backbone": SMALL, "data": "d", "schedule": steps}
    pretext.run(Pretext.model_validate(given), data=objects_path, output=found["pretext"], threads=1)
    learned = spec_of({"name": "regression", "teacher_layer": "conv5", "teacher_pool": Pool(avg=1)}, steps=1)
    student.run(learned, data=objects_path, teacher=found["pretext"], output=found["student"], threads=1)
    for kind, model, backbone in (
        ("file", "resnet18", {"name": "resnet18", "img_size": 64}),
        ("library", "shufflenet_v2_x0_5", {"name": "torchvision", "model": "shufflenet_v2_x0_5", "img_size": 64}),
    ):
        file = root / f"{model}.pth"
        torch.save(torchvision.models.get_model(model, weights=None).state_dict(), file)
        made = Pretext.model_validate({"task": {"name": "imported", "file": str(file)}, "backbone": backbone})
        pretext.run(made, output=found[kind], threads=1)
    return found


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_methods_train_from_every_teacher(
    kind: str, cached: bool, teachers: dict[str, Path], objects_path: Path, tmp_path: Path
) -> None:
    layer, pool = KINDS[kind]
    said = tmp_path / "said" / "manifest.json"
    taught: dict[str, Any] = {"teacher": teachers[kind]}
    if cached:
        asked = Features(model="t", layer=layer, pool=pool)
        features.run(asked, model=teachers[kind], data=objects_path, output=said, threads=1)
        taught = {"features": said}
    for name, options in METHODS.items():
        output = tmp_path / name / "manifest.json"
        method = {"name": name, **options, "precompute_teacher": cached, "teacher_layer": layer, "teacher_pool": pool}
        student.run(spec_of(method, steps=2), data=objects_path, output=output, threads=1, **taught)
        assert read_json(output)["summary"]["step"] == 2


VIT = Timm(model="test_vit", return_nodes=("blocks.3", "norm", "norm.cls"), img_size=64)
OF_TOKENS: dict[str, dict[str, Any]] = {
    "layer-regression": {"layers": ["conv4"], "teacher_layers": ["blocks.3"]},
    "attention-transfer": {
        "task": {"name": "rotation", "hidden_dim": 8},
        "layers": ["conv4"],
        "teacher_layers": ["blocks.3"],
    },
    "feature-distillation": {"teacher_layer": "norm.cls", "map_weight": 1},  # its last map: norm
    "compress-1q": {"queue_size": 40, "teacher_layer": "norm.cls"},
}


def test_tokens_of_a_vit_teach_and_are_probed(objects_path: Path, objects_val_path: Path, tmp_path: Path) -> None:
    """From a transformer's blocks to students and to a linear probe of a pooled map."""
    vit = make_model(tmp_path / "vit", VIT)
    for name, options in OF_TOKENS.items():
        output = tmp_path / name / "manifest.json"
        learned = spec_of({"name": name, **options}, steps=2)
        student.run(learned, data=objects_path, teacher=vit, output=output, threads=1)
        summary = read_json(output)["summary"]
        assert summary["step"] == 2 and summary["chance_loss"] > 0
    for layer, pool in (("blocks.3", {"max": 2}), ("norm.cls", None)):
        probe = {"name": "linear-probe", "layer": layer, "pool": pool, "schedule": {"steps": 2, "batch_size": 8}}
        spec = EvaluationSpec.model_validate({"protocol": probe, "train": "a", "test": "b", "seeds": [0]})
        output = tmp_path / f"{layer}.json"
        evaluate.run(spec, model=vit, train=objects_path, test=objects_val_path, output=output, threads=1)
        assert 0 <= read_json(output)["values"]["accuracy"][0] <= 100
