"""k-NN on the validation set during a training: right at the end, and without a trace in the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.index import read_index
from ssltransfer.config import ConfigError
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.entities import Features, Pretext, Student
from ssltransfer.models.build import build_backbone
from ssltransfer.stages import features, pretext, student
from ssltransfer.training.devices import Devices
from ssltransfer.training.online_knn import online_knn
from ssltransfer.training.task import TrainingError

BACKBONE = {"name": "caffenet", "width_mult": 0.125, "img_size": 64, "stem_stride": 2}
COMMON: dict[str, Any] = {
    "backbone": BACKBONE, "data": "d", "val": "v", "schedule": {"steps": 4, "batch_size": 8, "lr": 0.01}
}  # fmt: skip


def rows(manifest: Path) -> list[dict[str, float]]:
    return list(map(json.loads, manifest.with_name("curve.jsonl").read_text().splitlines()))


def expected(manifest: Path, index: Path, folder: Path, layer: str, k: int) -> float:
    """Leave-one-out votes from stored features, by a loop."""
    spec = Features(model="m", layer=layer, pool={"avg": 1}, precision="float32")
    features.run(spec, model=manifest, data=index, output=folder / "manifest.json", threads=1)
    x = open_features(folder / "manifest.json")[0].read(slice(None)).reshape(len(read_index(index)), -1)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    labels, right = read_index(index).labels, 0
    for sample, cosines in enumerate(x @ x.T):
        cosines[sample] = -np.inf
        nearest = np.argsort(-cosines)[:k]
        votes = np.bincount(labels[nearest], np.exp(cosines[nearest] / 0.07), labels.max() + 1)
        right += votes.argmax() == labels[sample]
    return right / len(labels)


@pytest.mark.parametrize("kind", ["pretext", "student"])
def test_val_knn_is_that_of_the_features_and_changes_no_weight(kind: str, objects_path: Path, tmp_path: Path) -> None:
    def train(**more: Any) -> Path:
        output = tmp_path / f"{kind}-{len(more)}" / "manifest.json"
        given: dict[str, Any] = {"data": objects_path, "val": objects_path, "output": output, "threads": 1}
        if kind == "pretext":
            task = {"name": "rotation", "hidden_dim": 16}
            pretext.run(Pretext.model_validate({**COMMON, **more, "task": task}), **given)
        else:
            student.run(Student.model_validate({**COMMON, **more, "method": "supervised"}), **given)
        return output

    plain, measured = train(), train(val_knn=5)
    assert (
        plain.with_name("backbone.safetensors").read_bytes() == measured.with_name("backbone.safetensors").read_bytes()
    )
    found = rows(measured)
    assert [{key: value for key, value in row.items() if key != "val_knn"} for row in found] == rows(plain)
    assert all("val_knn" in row for row in found if "val_loss" in row)
    if kind == "pretext":
        layer = json.loads(measured.read_text())["layers"][-1]
        assert found[-1]["val_knn"] == pytest.approx(
            expected(measured, objects_path, tmp_path / "f", layer, 5), abs=0.02
        )


def test_val_knn_needs_labels(objects_path: Path) -> None:
    index, options = read_index(objects_path), CaffeNet.model_validate(BACKBONE)
    backbone, devices = build_backbone(options, include_top=False), Devices(torch.device("cpu"), 0)
    with pytest.raises(TrainingError, match=r"val_knn: \d+ needs more labeled validation images than"):
        online_knn(backbone, options, "imagenet", index, len(index), devices)


@pytest.mark.parametrize("kind", [Pretext, Student])
def test_val_knn_needs_a_validation_set(kind: Any) -> None:
    content = {**COMMON, "val": None, "val_knn": 5} | {"task": "rotation"} if kind is Pretext else {
        **COMMON, "val": None, "val_knn": 5, "method": "supervised"
    }  # fmt: skip
    with pytest.raises((ConfigError, ValueError), match="val_knn needs a"):
        kind.model_validate(content)
