"""config/compress_small.yaml as it stands, by the workflow: students of one teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers.workflow import ROOT, measured

from ssltransfer.config import read_config

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]  # some minutes


def test_methods_bring_student_nearer_to_teacher(tmp_path: Path) -> None:
    config = ROOT / "config/compress_small.yaml"
    found = {model: metrics.mean() for model, metrics in measured(config, tmp_path)["neighbors"].items()}
    print(found)
    teacher, random = found.pop("teacher"), found.pop("random-resnet18-w0.125-48px-s1")
    students = {model: value for model, value in found.items() if not model.startswith("random-")}
    assert students.keys() == read_config(config).students.keys() - {"teacher"}
    assert min(teacher, *students.values()) > random
