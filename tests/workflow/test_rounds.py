"""The example of docs/clustering.md: rounds of clustering and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.helpers.workflow import example, planned, snakemake, write_config

from ssltransfer.artifacts.files import file_digest, read_json

ROUNDS = {
    "index/photos",
    "pretext/round-0",
    *(f"{stage}/round-{r}{data}" for r in (0, 1) for stage, data in (("cluster", ""), ("label", "/photos"))),
    "features/round-0/photos",
    "features/round-1/photos",
    "student/round-1",
    "student/round-2",
    "report/index",
}


def rounds(**dataset: Any) -> dict[str, Any]:
    """The example, with other options of its dataset, small clusters and short trainings."""
    config = example(0, **dataset)
    config["clusters"]["round-{r}"]["k"] = 4
    config["students"]["round-{r}"]["schedule"] = {"steps": 2, "batch_size": 16, "lr": 0.01}
    return config


def test_rounds_are_planned(tmp_path: Path):
    write_config(tmp_path, rounds())
    assert planned(tmp_path) == ROUNDS


@pytest.mark.slow
def test_rounds_run_and_start_from_each_other(tmp_path: Path):
    write_config(tmp_path, rounds(num_images=48))
    run = snakemake(tmp_path, "--cores", "2")
    assert run.returncode == 0, run.stdout
    results = tmp_path / "results"
    manifests = {name: read_json(results / name / "manifest.json") for name in ROUNDS if name.startswith("student/")}
    sources = {"student/round-1": "pretext/round-0", "student/round-2": "student/round-1"}
    for name, source in sources.items():
        file = results / source / "manifest.json"
        assert manifests[name]["inputs"]["init"] == [file_digest(file)]
        assert manifests[name]["init"] == read_json(file)["weights"]
    assert planned(tmp_path) == set()
