"""The example of docs/clustering.md: a dataset that is chosen from clusters."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers.workflow import example, planned, snakemake, write_config

from ssltransfer.artifacts.files import read_json
from ssltransfer.artifacts.index import read_index

PLANNED = {
    "index/photos",
    "pretext/teacher",
    "features/teacher/photos",
    "cluster/photos-k40",
    "label/photos-k40/photos",
    "curate/balanced",
    "pretext/rotation",
    "report/index",
}


def test_curated_dataset_is_planned(tmp_path: Path):
    """It has no index of its own."""
    write_config(tmp_path, example(2))
    assert planned(tmp_path) == PLANNED


@pytest.mark.slow
@pytest.mark.parametrize("cache", [None, {"short_side": 64}])
def test_curated_dataset_is_trained_on(tmp_path: Path, cache: dict[str, int] | None):
    """Also from the cache of its source."""
    config = example(2, num_images=64, **({"cache": cache} if cache else {}))
    config["clusters"]["photos-k40"] |= {"k": 8, "levels": [3]}
    config["datasets"]["balanced"]["curate"] |= {"num_images": 24, "max_similarity": 0.9999}
    config["pretexts"]["rotation"]["schedule"] = {"steps": 2, "batch_size": 8, "lr": 0.01}
    write_config(tmp_path, config)
    run = snakemake(tmp_path, "--cores", "2")
    assert run.returncode == 0, run.stdout
    index = read_index(tmp_path / "results/curate/balanced.parquet")
    assert len(index) == 24 and (index.cache is not None) == bool(cache)
    assert read_json(tmp_path / "results/pretext/rotation/manifest.json")["summary"]["loss"] > 0
    assert planned(tmp_path) == set()
