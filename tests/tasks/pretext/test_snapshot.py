"""Snapshots: the backbone as it was, a model like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssltransfer.artifacts.files import ArtifactError, read_json
from ssltransfer.config.base import ConfigError
from ssltransfer.config.entities import Pretext
from ssltransfer.config.load import complete
from ssltransfer.models.weights import read_model
from ssltransfer.stages import pretext

BACKBONE = {"name": "caffenet", "width_mult": 0.125, "img_size": 48, "stem_stride": 2, "bn": True}
ROTATION = {"name": "rotation", "augment": "crop", "hidden_dim": 16}


def content(**more: Any) -> dict[str, Any]:
    schedule = {"steps": 4, "batch_size": 8, "lr": 0.01, "lr_schedule": "constant"}
    turn = {"task": ROTATION, "backbone": BACKBONE, "data": "d", "schedule": schedule, "snapshots": [1, 2]}
    world = {"format": "synthetic", "subset": "objects", "split": "train", "num_images": 48, "size": 64}
    return {"datasets": {"d": world, "e": {**world, "split": "val"}}, "pretexts": {"turn": {**turn, **more}}}


def test_a_snapshot_is_the_network_of_a_shorter_training(tmp_path: Path, objects_path: Path):
    config = complete(content())
    assert set(config.pretexts) == {"turn", "turn@1", "turn@2"} and {"turn@1", "turn@2"} <= config.derived
    whole = tmp_path / "turn" / "manifest.json"
    spec = config.pretexts["turn"]
    pretext.run(spec, output=whole, data=objects_path, threads=1)
    shorter = Pretext.model_validate(
        {
            **spec.model_dump(mode="json"),
            "snapshots": (),
            "schedule": {"steps": 2, "batch_size": 8, "lr": 0.01, "lr_schedule": "constant"},
        }
    )
    pretext.run(shorter, output=tmp_path / "short" / "manifest.json", data=objects_path, threads=1)
    copy = tmp_path / "turn@2" / "manifest.json"
    pretext.run(Pretext.parse(config.pretexts["turn@2"].canonical()), output=copy, model=whole, threads=1)
    weights = [path.parent / "backbone.safetensors" for path in (copy, tmp_path / "short" / "manifest.json", whole)]
    assert weights[0].read_bytes() == weights[1].read_bytes() != weights[2].read_bytes()
    assert read_model(copy).normalization == read_model(whole).normalization
    file = next((tmp_path / "turn" / "work").glob("*/snapshots/1.safetensors"))
    assert set(read_json(whole)["snapshots"]) == {"1", "2"}
    file.write_bytes(b"")
    with pytest.raises(ArtifactError, match="not the snapshot that"):
        pretext.run(config.pretexts["turn@1"], output=tmp_path / "turn@1" / "manifest.json", model=whole, threads=1)


def test_a_pattern_means_snapshots_where_it_says_so():
    nearest = {"protocol": {"name": "knn", "layer": "conv5"}, "train": "d", "test": "e", "baselines": []}
    for pattern, rows in (("turn*", ("turn",)), ("*@*", ("turn@1", "turn@2")), ("turn@2", ("turn@2",))):
        config = complete({**content(), "evaluations": {"near": {**nearest, "models": [pattern]}}})
        assert config.rows["near"] == rows
    assert config.model("turn@2").layers[-1] == "conv5"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"snapshots": [2, 1]}, "snapshots must rise"),
        ({"snapshots": [4]}, "before the last step"),
        ({"task": "random", "schedule": None}, "no steps to keep snapshots of"),
        (
            {"task": {"name": "snapshot", "source": "turn", "step": 1}, "snapshots": [], "schedule": None},
            "made by themselves",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any], says: str):
    with pytest.raises(ConfigError, match=says):
        complete(content(**change))
