"""An extraction in parts, run by Snakemake, and what another number of parts makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers.workflow import compared, planned, results, snakemake, tiny, write_config

pytestmark = pytest.mark.slow

STORE = "features/puzzle-conv4/objects-train"
TARGET = ("--", f"results/{STORE}/manifest.json")
LOOK_AWAY = ("--rerun-triggers", "mtime", "params", "code", "software-env")


def scattered(number: int) -> tuple[str, ...]:
    threads = ("index=1", "pretext=1", "features=1", "features_shard=1")
    return "--cores", "2", "--set-threads", *threads, "--set-scatter", f"features={number}"


def test_scatter_count_change_reruns_nothing(tmp_path: Path):
    write_config(tmp_path, tiny())
    found = []
    for number, computed in ((2, "0 of 1 chunks to compute"), (1, "made before"), (3, "made before")):
        run = snakemake(tmp_path, *scattered(number), *TARGET)
        assert run.returncode == 0, run.stdout
        assert computed in (tmp_path / f"results/logs/{STORE}.log").read_text()
        (chunk,) = results(tmp_path).glob(f"{STORE}/work/*/features.zarr/features/c/*/0")
        found.append((compared(tmp_path), chunk.stat().st_mtime_ns))
        assert planned(tmp_path, *scattered(number), *TARGET) == set()
    assert found[0] == found[1] == found[2]
    assert not list((results(tmp_path) / STORE).glob("*-of-*"))
    assert planned(tmp_path, *scattered(1), *TARGET) == {STORE}
    assert planned(tmp_path, *scattered(1), *LOOK_AWAY, *TARGET) == set()
