"""A small chain of made-up results, written by the real writers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssltransfer.artifacts.files import file_digest, write_json, write_text
from ssltransfer.artifacts.index import Index, write_index
from ssltransfer.artifacts.labels import Labels, write_labels
from ssltransfer.artifacts.metrics import DatasetRef, Metrics, write_metrics
from ssltransfer.artifacts.workdir import run_info_file
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.entities import Report
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import write_model
from ssltransfer.stages.report import run

NASTY = ["plain", "<b>bold</b> & 'quoted'", 'a"b', "größe → ∞", "</style><script>x()</script>"]
BACKBONE = {"name": "caffenet", "width_mult": 0.1, "img_size": 64, "stem_stride": 2}
SCHEDULE = {"steps": 20, "batch_size": 8, "lr": 0.1}
RUN = {
    "seconds": 65.4,
    "peak_memory_mb": 1234,
    "images_per_second": 76.2,
    "data_wait_fraction": 0.008,
    "device": "CPU (2 threads)",
    "python": "3.11.7",
    "host": "a<b",
}


@dataclass
class Chain:
    """Writes results under `root` and remembers the paths as the report takes them."""

    root: Path
    inputs: dict[str, list[Path]] = field(
        default_factory=lambda: {
            kind: [] for kind in ("indexes", "models", "features", "clusters", "labels", "metrics")
        }
    )
    indexes: dict[str, Index] = field(default_factory=dict)

    def report(self, spec: Report | None = None, name: str = "report") -> Path:
        output = self.root / name / "index.html"
        inputs: dict[str, Any] = {**self.inputs}
        run(spec or Report(montage_clusters=3, montage_images=4), output=output, **inputs)
        return output

    def dataset(self, name: str, n: int = 20, classes: list[str] | None = None, **skipped: str) -> Index:
        folder = self.root / "images" / name
        folder.mkdir(parents=True)
        random = np.random.default_rng(len(self.indexes))
        names = [f"{i} {NASTY[i % len(NASTY)].replace('/', '_')}.png" for i in range(n)]
        for image in names:
            Image.fromarray(random.integers(0, 256, (32, 40, 3), np.uint8)).save(folder / image)
        index = Index(
            root=folder,
            paths=names,
            labels=np.arange(n, dtype=np.int32) % len(classes) if classes else np.full(n, -1, np.int32),
            classes=classes or [],
            sizes=np.tile(np.array([40, 32], np.int32), (n, 1)),
            digests=[file_digest(folder / path) for path in names],
            skipped=skipped,
            spec={"format": "folder", "root": str(folder)},
        )
        path = self.root / "index" / f"{name}.parquet"
        write_index(path, index)
        self.inputs["indexes"].append(path)
        self.indexes[name] = index
        return index

    def model(self, name: str, stage: str, spec: dict[str, Any], *, trained: bool = True) -> Path:
        folder = self.root / stage / name
        spec = {"backbone": BACKBONE, "schedule": SCHEDULE, **spec}
        backbone = build_backbone(CaffeNet.model_validate(BACKBONE), include_top=False, seed=1)
        content = write_model(folder, backbone, "imagenet", spec)
        if trained:
            chance_loss = math.log(100)
            rows = [
                {"step": s, "epoch": s / 10, "loss": chance_loss / s**0.2, "accuracy": s / 50} for s in range(1, 21)
            ]
            rows[-1] |= {"val_loss": 4.0, "val_accuracy": 0.1}
            write_text(folder / "curve.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
            content["summary"] = {**rows[-1], "chance_loss": chance_loss}
        return self._manifest("models", folder, stage, spec, content)

    def feature(self, name: str, data: str, model: str) -> Path:
        content = {"layer": "conv4", "layer_shape": [4], "index": self.indexes[data].fingerprint, "model": "ef56"}
        content["chunks"] = []
        spec = {"model": model, "layer": "conv4"}
        return self._manifest("features", self.root / "features" / name / data, "features", spec, content)

    def cluster(self, name: str, features: str, data: str, k: int = 5, parents: list[int] | None = None) -> Path:
        """With `parents`, a level above of as many clusters as these are."""
        n = len(self.indexes[data])
        rows = [{"iteration": i, "objective": 100.0 / i, "moved": n // i, "empty": 0} for i in range(1, 6)]
        folder = self.root / "cluster" / name
        write_text(folder / "curve.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        sizes = np.bincount(np.arange(n) % (k - 1), minlength=k)
        content = {
            "points": n,
            "sizes": sizes.tolist(),
            "objective": 20.0,
            "iterations": 5,
            "stopped": "tolerance",
            "centroids": "ab12",
            "index": self.indexes[data].fingerprint,
            "model": "ef56",
            "layer": "conv4",
            "layer_shape": [4],
            "pool": None,
        }
        spec = {"features": features, "data": data, "k": k}
        if parents:
            spec["levels"], content["levels"] = [max(parents) + 1], [{"centroids": "cd34", "parents": parents}]
        return self._manifest("clusters", folder, "cluster", spec, content)

    def label(self, cluster: str, data: str, k: int = 5) -> Path:
        index = self.indexes[data]
        n = len(index)
        labels = Labels(
            paths=index.paths,
            labels=np.arange(n, dtype=np.int32) % (k - 1),
            distances=np.linspace(1, 0, n, dtype=np.float32),
            k=k,
            index=index.fingerprint,
            cluster="0" * 32,
        )
        path = self.root / "label" / cluster / f"{data}.parquet"
        write_labels(path, labels)
        self.inputs["labels"].append(path)
        return path

    def measure(self, evaluation: str, model: str, values: dict[str, list[float]], **more: Any) -> Path:
        primary_metric = next(iter(values))
        roles = list(self.indexes.items())[:2]
        metrics = Metrics(
            model=model,
            evaluation=evaluation,
            primary_metric=primary_metric,
            unit="%",
            values=values,
            seeds=list(range(len(values[primary_metric]))),
            datasets={
                role: DatasetRef(name, len(index), index.fingerprint)
                for role, (name, index) in zip(("train", "test"), roles, strict=False)
            },
            **{
                "protocol": {"name": "linear-probe-per-layer" if primary_metric == "best" else "knn"},
                "chance": 10.0,
                **more,
            },
        )
        path = self.root / "evaluate" / evaluation / f"{model}.json"
        write_metrics(path, metrics)
        write_json(run_info_file(path), RUN)
        self.inputs["metrics"].append(path)
        return path

    def _manifest(self, kind: str, folder: Path, stage: str, spec: dict[str, Any], content: dict[str, Any]) -> Path:
        path = folder / "manifest.json"
        write_json(path, {"stage": stage, "spec": spec, "inputs": {"data": ["ab12"]}, "work": "cd34", **content})
        write_json(run_info_file(path), RUN)
        self.inputs[kind].append(path)
        return path


def fill(chain: Chain) -> Chain:
    """Two datasets, a teacher, a clustering, a student, baselines and evaluations; names with special characters."""
    torch.manual_seed(0)
    skipped: dict[str, Any] = {"bad<.jpg": "not an image: <garbage> & more"}
    train = chain.dataset("objects.v1+x", classes=NASTY, **skipped)
    test = chain.dataset("scenes_b", n=12, classes=NASTY)
    chain.model("jigsaw++.a_b", "pretext", {"task": {"name": "jigsaw++"}, "data": "objects.v1+x"})
    chain.model("random-caffenet", "pretext", {"task": {"name": "random"}}, trained=False)
    chain.feature("jig-conv4", "objects.v1+x", "jigsaw++.a_b")
    chain.feature("jig-conv4", "scenes_b", "jigsaw++.a_b")
    chain.cluster("jig-k5", "jig-conv4", "objects.v1+x")
    chain.label("jig-k5", "objects.v1+x")
    chain.label("jig-k5", "scenes_b")
    student = {"method": {"name": "cluster-classification", "cluster": "jig-k5"}, "data": "scenes_b"}
    chain.model("cc-jig", "student", student)
    chain.model("supervised-caffenet", "student", {"method": {"name": "supervised"}, "data": "objects.v1+x"})
    near = [{"train": 1, "path": train.paths[1], "class": NASTY[1], "similarity": 0.91}]
    details = {
        "classes": NASTY,
        "per_class": dict.fromkeys(NASTY, 20.0),
        "confusion": np.eye(len(NASTY), dtype=int).tolist(),
        "examples": [{"test": 0, "path": test.paths[0], "class": NASTY[1], "neighbors": near}],
        "note": NASTY[4],
    }
    for model, value in (
        ("jigsaw++.a_b", 31.0),
        ("random-caffenet", 20.0),
        ("cc-jig", 35.25),
        ("supervised-caffenet", 61.0),
    ):
        chain.measure("nn", model, {"accuracy": [value]}, details=details)
        layers = {f"conv{i}": [value + i, value - i] for i in (1, 2, 3)}
        chain.measure("linear", model, {"best": layers["conv3"], **layers}, details={"layers": list(layers)})
    return chain


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Not to be changed by a test."""
    return fill(Chain(tmp_path_factory.mktemp("results")))
