"""Every method learns from every kind of teacher, asked live and read from a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from ssltransfer.artifacts.files import read_json
from ssltransfer.config.entities import Features, Pretext
from ssltransfer.config.protocols import Pool
from ssltransfer.stages import features, pretext, student

from .conftest import spec_of

SMALL = {"name": "caffenet", "width_mult": 0.125, "img_size": 64, "stem_stride": 2}
METHODS: dict[str, dict[str, Any]] = {
    "compress-1q": {"queue_size": 40},
    "compress-2q": {"queue_size": 40},
    "regression": {"bn": True},
    "crd": {"embed_dim": 8, "num_negatives": 20},
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
    taught: dict[str, Path] = {"teacher": teachers[kind]}
    if cached:
        asked = Features(model="t", layer=layer, pool=pool)
        features.run(asked, model=teachers[kind], data=objects_path, output=said, threads=1)
        taught = {"features": said}
    for name, options in METHODS.items():
        output = tmp_path / name / "manifest.json"
        method = {"name": name, **options, "precompute_teacher": cached, "teacher_layer": layer, "teacher_pool": pool}
        student.run(spec_of(method, steps=2), data=objects_path, output=output, threads=1, **taught)
        assert read_json(output)["summary"]["step"] == 2
