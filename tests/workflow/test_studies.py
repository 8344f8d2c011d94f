"""config/studies: each configuration is complete, and its models are trained and evaluated at a tiny size."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.helpers.workflow import ROOT, snakemake, write_config

from ssltransfer.artifacts.metrics import read_metrics
from ssltransfer.config import Config, read_config

STUDIES = sorted((ROOT / "config/studies").glob("*.yaml"))
CLASSES = 4
TINY_NUMBERS = {"k": 4, "queue_size": 16, "num_negatives": 8, "per_class": 1, "vocabulary_size": 4}
TINY_SCHEDULE = {"steps": 2, "batch_size": 8, "lr": 0.01}


def images(root: Path) -> None:
    """Noise in train/CLASS and val/CLASS."""
    for split, number in (("train", 6), ("val", 2)):
        for label in range(CLASSES):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(number):
                noise = np.random.default_rng((number, label, i)).integers(0, 256, (72, 80, 3), np.uint8)
                Image.fromarray(noise).save(folder / f"{i}.png")


def shrunk(config: dict[str, Any], root: Path) -> dict[str, Any]:
    """The configuration with small schedules, one seed, no snapshots and no report, on noise."""
    config = copy.deepcopy(config)
    config["results"] = "results"
    config.pop("report")
    for dataset in config["datasets"].values():
        split = "val" if dataset["split"] in ("val", "test") else "train"
        dataset.clear()
        dataset.update({"format": "imagefolder", "root": str(root), "split": split})
    _shrink(config)
    for evaluation in config["evaluations"].values():
        evaluation["models"] = [pattern for pattern in evaluation["models"] if "@" not in pattern]
    return config


def _shrink(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _shrink(item)
    if isinstance(node, dict):
        node.pop("snapshots", None)
        for key, value in node.items():
            if key == "schedule":
                node[key] = {**TINY_SCHEDULE, "optimizer": value.get("optimizer", "sgd")}
            elif key == "for" and "seed" in value:
                value["seed"] = value["seed"][:1]
            elif key in TINY_NUMBERS and isinstance(value, int):
                node[key] = TINY_NUMBERS[key]
            else:
                _shrink(value)


def one_of_each_kind(config: Config) -> list[str]:
    """The first model of each task or method on each backbone."""
    kinds: dict[object, str] = {}
    for name, pretext in config.pretexts.items():
        kinds.setdefault((pretext.task.name, pretext.backbone.name), name)
    for name, student in config.students.items():
        kinds.setdefault((student.method.name, student.backbone.name), name)
    return list(kinds.values())


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_study_names_its_results_and_data_like_the_others(study: Path) -> None:
    config = read_config(study)
    assert config.results == f"results/studies/{study.stem}"
    assert config.report.tables or len(config.evaluations) < 3
    for dataset in config.datasets.values():
        assert not Path(getattr(dataset, "root", None) or "data").is_absolute()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_study_starts(study: Path, tmp_path: Path) -> None:
    """From images to the first evaluation of the first student, or of the first pretext where there are no students."""
    config = tiny_study(study, tmp_path)
    first = next(iter(config.students or config.pretexts))
    evaluation = next(name for name in config.evaluations if first in config.rows[name])
    evaluate(tmp_path, {(evaluation, first)})


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_study_starts_with_every_kind_of_model(study: Path, tmp_path: Path) -> None:
    """One model of each kind under one evaluation, and one of them under all."""
    config = tiny_study(study, tmp_path)
    chosen = one_of_each_kind(config)
    most = max(chosen, key=lambda model: sum(model in rows for rows in config.rows.values()))
    wanted = {(name, most) for name in config.evaluations if most in config.rows[name]}
    for model in chosen:
        wanted |= {(name, model) for name in [name for name in config.evaluations if model in config.rows[name]][:1]}
    evaluate(tmp_path, wanted)


def tiny_study(study: Path, folder: Path) -> Config:
    """Write images and the small configuration into `folder`."""
    images(folder / "images")
    return read_config(write_config(folder, shrunk(yaml.safe_load(study.read_text("utf-8")), folder / "images")))


def evaluate(folder: Path, wanted: set[tuple[str, str]]) -> None:
    """Run everything that leads to some (evaluation, model)."""
    targets = {f"results/evaluate/{name}/{model}.json": (name, model) for name, model in sorted(wanted)}
    run = snakemake(folder, "--cores", "1", *targets)
    assert run.returncode == 0, run.stdout[-6000:]
    for target, (name, model) in targets.items():
        metrics = read_metrics(folder / target)
        assert (metrics.evaluation, metrics.model) == (name, model)
        assert np.isfinite(metrics.mean())
