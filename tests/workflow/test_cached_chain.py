"""The chain on cached images: what is planned, what runs again, and that it learns the same from the same pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.helpers.workflow import planned, results, snakemake, tiny, write_config

from ssltransfer.artifacts.files import file_digest, read_json
from ssltransfer.artifacts.index import read_index

# Images of 64 pixels: a raw cache of that size holds what the files hold.
CACHES = {
    "datasets.objects-train.cache": {"format": "raw", "short_side": 64},
    "datasets.scenes-train.cache": {"short_side": 48},
}
OF_THE_SCENES = {
    "features/puzzle-conv4/scenes-train",
    "label/puzzle-k4/scenes-train",
    "student/pupil",
    "features/pupil.conv4-max2/objects-train",
    "features/pupil.conv4-max2/objects-val",
    "evaluate/nearest/pupil",
    "report/index",
}


def test_cache_rule_runs_for_configured_datasets_only(tmp_path: Path):
    write_config(tmp_path, tiny())
    plain = planned(tmp_path)
    write_config(tmp_path, tiny(**CACHES))
    assert planned(tmp_path) == plain | {"cache/objects-train", "cache/scenes-train"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole chain has run on caches."""
    folder = tmp_path_factory.mktemp("cached")
    write_config(folder, tiny(**CACHES))
    run = snakemake(folder, "--cores", "2")
    assert run.returncode == 0, run.stdout
    return folder


@pytest.mark.slow
def test_cached_chain_equals_uncached_chain(finished: Path, tmp_path: Path):
    write_config(finished, tiny(**CACHES))
    assert planned(finished) == set()
    write_config(tmp_path, tiny())
    run = snakemake(tmp_path, "--cores", "2", "--", "results/pretext/puzzle/manifest.json")
    assert run.returncode == 0, run.stdout
    for file in ("backbone.safetensors", "curve.jsonl"):
        name = f"pretext/puzzle/{file}"
        assert (results(finished) / name).read_bytes() == (results(tmp_path) / name).read_bytes()
    # It was the cache that was read.
    index = results(finished) / "cache/objects-train.parquet"
    assert read_json(results(finished) / "pretext/puzzle/manifest.json")["inputs"]["data"] == [file_digest(index)]
    assert read_index(index).cache is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "reruns"),
    [
        ({"datasets.scenes-train.cache": {"short_side": 48, "quality": 80}}, {"cache/scenes-train", *OF_THE_SCENES}),
        ({"datasets.scenes-train.cache": {"short_side": 48, "quality": 95, "format": "jpeg"}}, set()),
        ({"datasets.scenes-train.cache": None}, OF_THE_SCENES),
        (
            {"datasets.scenes-train.num_images": 49},
            {"index/scenes-train", "cache/scenes-train", *OF_THE_SCENES},
        ),
    ],
    ids=["quality", "defaults", "none", "images"],
)
def test_cache_change_keeps_index(finished: Path, changes: dict[str, Any], reruns: set[str]):
    write_config(finished, tiny(**CACHES | changes))
    assert planned(finished) == reruns
