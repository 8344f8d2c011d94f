"""Every evaluation protocol once on real images, with small random networks; two of them killed and run again."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssltransfer.artifacts.metrics import Metrics, read_metrics
from ssltransfer.config.backbones import CaffeNet, ResNet18
from ssltransfer.config.entities import EvaluationSpec, Features
from ssltransfer.config.formats import Dataset, ImageFolder, Rgbd, Voc
from ssltransfer.config.protocols import PROTOCOLS, FeatureProtocol
from ssltransfer.stages.evaluate import run
from ssltransfer.stages.features import run as extract
from ssltransfer.stages.index import run as make_index
from tests.helpers import HELPERS
from tests.helpers.protocol_inputs import make_model

pytestmark = [pytest.mark.real, pytest.mark.slow]
Sets = dict[str, tuple[Path, Path]]
DRIVER = HELPERS / "protocol_laws.py"

LAYER = {"layer": "conv5", "pool": {"max": 3}}
SHORT = {"steps": 60, "batch_size": 32, "optimizer": "adam", "lr": 0.003, "lr_schedule": "cosine"}
FEW = {"steps": 30, "batch_size": 4, "optimizer": "adam", "lr": 0.002}
IMAGES = {"min_size": [128], "max_size": 256, "test_min_size": 128, "test_max_size": 256, "score_thresh": 0.0}

# Protocol -> images, network, options, and by how much more than chance it finds after so few steps.
TABLE: dict[str, tuple[str, str, dict[str, Any], float | None]] = {
    "linear-probe-per-layer": ("caltech101", "plain", {"max_features": 1024, "schedule": SHORT}, 5),
    "finetune-from-layer": ("caltech101", "plain", {"layers": ["conv3"], "dropout": 0, "schedule": SHORT}, 5),
    "knn": ("caltech101", "plain", {**LAYER, "k": 5}, 5),
    "cluster-alignment": ("caltech101", "plain", LAYER, 0),
    "logreg": ("tiny_imagenet", "plain", LAYER, 5),
    "retrieval": ("cars196", "plain", {"layer": "conv3", "pool": {"max": 4}}, 0),
    "linear": ("caltech101", "plain", {**LAYER, "schedule": SHORT}, 5),
    "linear-probe": ("caltech101", "plain", {**LAYER, "schedule": SHORT}, 5),
    "mlp-probe": ("caltech101", "plain", {**LAYER, "hidden_dim": 64, "schedule": SHORT}, 5),
    "frozen-block3": ("caltech101", "residual", {"schedule": SHORT}, None),
    "voc-classification": ("voc", "plain", {"crops": 2, "schedule": FEW}, None),
    "fast-rcnn": ("boxes", "plain", {**IMAGES, "proposals": "grid", "multiscale_min_size": None, "schedule": FEW}, 0),
    "faster-rcnn": (
        "boxes",
        "residual",
        {**IMAGES, "roi_batch_size_per_image": 32, "anchor_scales": [1, 2, 4], "schedule": FEW},
        None,
    ),
    "segmentation": ("masks", "plain", {"padding": 40, "schedule": {**FEW, "steps": 2, "batch_size": 2}}, None),
    "depth": (
        "kitchen",
        "residual",
        {"resize": [60, 80], "crop": [57, 76], "decoder_dim": 32, "schedule": {**FEW, "steps": 60, "batch_size": 8}},
        None,
    ),
}


def test_real_evaluations_cover_every_protocol() -> None:
    assert set(TABLE) == {kind.model_fields["name"].default for kind in PROTOCOLS}


@pytest.fixture(scope="module")
def sets(real_data: Path, kitchen: Path, tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """Indexes of training and test images."""
    voc, objects = str(real_data / "voc_coco"), real_data / "objects"

    def folders(root: Path, *splits: str) -> list[Dataset]:
        return [ImageFolder(root=str(root), split=split) for split in splits]

    wanted: dict[str, list[Dataset]] = {
        "caltech101": folders(objects / "caltech101", "train", "val"),
        "tiny_imagenet": folders(objects / "tiny_imagenet", "train", "val"),
        "cars196": folders(real_data / "retrieval" / "cars196", "train", "test"),
        "voc": [Voc(root=voc, split=split) for split in ("train", "val")],
        "boxes": [Voc(root=voc, split=split, targets="boxes") for split in ("train", "val")],
        "masks": [Voc(root=voc, split=split, targets="masks") for split in ("train", "val")],
        "kitchen": [Rgbd(root=str(kitchen), split=split) for split in ("train", "test")],
    }
    folder = tmp_path_factory.mktemp("sets")
    found = {}
    for name, pair in wanted.items():
        paths = folder / f"{name}-train.parquet", folder / f"{name}-test.parquet"
        for path, dataset in zip(paths, pair, strict=True):
            make_index(dataset, output=path, threads=1)
        found[name] = paths
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    plain = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2, bn=True)
    return {
        "plain": make_model(folder / "plain", plain),
        "residual": make_model(folder / "residual", ResNet18(width_mult=0.125, img_size=64)),
    }


def job_of(name: str, sets: Sets, models: dict[str, Path]) -> tuple[EvaluationSpec, dict[str, Path]]:
    images, model, options, _ = TABLE[name]
    trains = {} if name == "retrieval" else {"train": sets[images][0]}
    spec = {"protocol": {"name": name, **options}, "test": "b", **({"train": "a"} if trains else {})}
    return EvaluationSpec.model_validate(spec), {"model": models[model], "test": sets[images][1], **trains}


@pytest.mark.parametrize("name", TABLE)
def test_on_real_images(name: str, sets: Sets, models: dict[str, Path], tmp_path: Path) -> None:
    spec, given = job_of(name, sets, models)
    if isinstance(spec.protocol, FeatureProtocol):
        features = Features.model_validate({"model": "m", "layer": spec.protocol.layer, "pool": spec.protocol.pool})
        for role in given.keys() & {"train", "test"}:
            stored = tmp_path / role / "manifest.json"
            extract(features, model=given["model"], data=given[role], output=stored, threads=1)
            given[f"{role}_features"] = stored
    run(spec, output=tmp_path / name / "m.json", threads=1, **given)
    found = read_metrics(tmp_path / name / "m.json")
    print(name, {key: round(found.mean(key), 2) for key in found.values}, "chance", found.chance)
    sensible(found)
    above = TABLE[name][3]
    assert found.chance is not None and (above is None or found.mean() > found.chance + above)


def sensible(found: Metrics) -> None:
    """Finite, and within the limits of what they are."""
    for name, numbers in found.values.items():
        falling = name in ("mae", "rel")
        assert all(math.isfinite(one) and 0 <= one <= (math.inf if falling else 100) for one in numbers), name


def test_killed_half_way_on_real_images(sets: Sets, models: dict[str, Path], tmp_path: Path) -> None:
    """A classifier on a frozen layer and a detector."""
    jobs = []
    for name in ("linear", "faster-rcnn"):
        spec, given = job_of(name, sets, models)
        jobs.append({"name": name, "spec": spec.canonical(), "inputs": given, "output": tmp_path / name / "m.json"})
    (tmp_path / "plan.json").write_text(json.dumps(jobs, default=str))
    words = [sys.executable, str(DRIVER), "kill", str(tmp_path / "plan.json")]
    environment = {**os.environ, "SSLTRANSFER_CHECKPOINT_STEPS": "1"}
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True, timeout=600)
    for outcome in json.loads(done.stdout.splitlines()[-1]):
        assert outcome["statuses"] == [0, -signal.SIGKILL, 0] and outcome["computed"][1] < outcome["computed"][0]
        name = outcome["name"]
        whole, broken = (tmp_path / name / how / name / "m.json" for how in ("whole", "broken"))
        assert whole.read_bytes() == broken.read_bytes()
