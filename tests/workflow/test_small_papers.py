"""The papers' small configurations as they stand, by the workflow: their tables and figures, and what must be in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain import ROOT, measured

from ssltransfer.artefacts.metrics import Metrics
from ssltransfer.config import read_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # some minutes each


def made(name: str, folder: Path) -> dict[str, dict[str, Metrics]]:
    """Run it; every evaluation is there, and every table is in the report."""
    file = ROOT / "config" / f"{name}.yaml"
    found, config = measured(file, folder), read_config(file)
    page = (folder / config.results / "report/index.html").read_text("utf-8")
    assert set(found) == set(config.evaluations)
    assert all(table.title in page for table in config.report.tables)
    return found


def test_every_method_brings_a_student_nearer_to_its_teacher(tmp_path: Path) -> None:
    found = {model: metrics.mean() for model, metrics in made("compress_small", tmp_path)["neighbours"].items()}
    print(found)
    teacher = found.pop("teacher")
    random = max(found.pop(model) for model in list(found) if model.startswith("random-"))
    students = set(read_config(ROOT / "config/compress_small.yaml").students) - {"teacher"}
    assert found.keys() == students
    assert teacher > min(found.values()) > random


def test_several_tasks_on_one_trunk(tmp_path: Path) -> None:
    """Their tables: alone and together, mixes of units, quality against compute."""
    frozen = made("doersch2017_small", tmp_path)["frozen"]
    assert frozen.keys() >= {"rp", "col", "together", "together@20", "together@40", "lasso", "at-once"}


def test_tasks_on_several_networks(tmp_path: Path) -> None:
    """Their tables: two data sets, widths, classifiers, layers, few labels."""
    found = made("kolesnikov2019_small", tmp_path)
    trained = {model for model in found["objects"] if not model.startswith("random-")}
    assert trained == {"rotation-resnet18-w0.125", "rotation-resnet18-w0.25", "rotation-caffenet"} | {
        f"exemplar-{trunk}" for trunk in ("resnet18-w0.25", "caffenet")
    }
    for split in ("objects", "scenes"):
        tasks = {model.rsplit("-", 1)[0] for model in found[f"{split}-patches"] if not model.startswith("random-")}
        assert {"relative-patch-location", "jigsaw-kolesnikov"} <= {task.removesuffix("-resnet18") for task in tasks}
