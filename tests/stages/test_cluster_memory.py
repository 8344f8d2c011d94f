"""A store four times larger than the budget is clustered on two levels, labeled and curated within it."""

import json
import os
import subprocess
import sys

import numpy as np

from ssltransfer.artifacts import features
from tests.helpers import HELPERS

DRIVER = HELPERS / "cluster_memory.py"
BUDGET_MB = 96
# Large arrays are mapped and freed one by one: fragments of a heap depend on the timing of threads.
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(5 << 20), "MALLOC_TRIM_THRESHOLD_": str(16 << 20)}


def test_cluster_label_and_curate_stay_within_memory_budget(make_features, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK_BYTES", 6 << 20)
    rng = np.random.default_rng(0)
    means = rng.normal(size=(64, 1024)) * 3
    part = (rng.normal(size=(4096, 1024)) + means[rng.integers(64, size=4096)]).astype(np.float32)
    small = make_features(part, "small")
    values = np.broadcast_to(part, (25, *part.shape)).reshape(-1, 1024)
    large = make_features(values, "large")
    del values
    ended = subprocess.run(
        [sys.executable, DRIVER, *small, *large, tmp_path / "results"],
        env={**os.environ, **MALLOC, "SSLTRANSFER_MEMORY_MB": str(BUDGET_MB)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    seen = json.loads(ended.stdout.splitlines()[-1])
    assert seen["ratio"] > 4
    assert seen["repeated"] == 24 * 4096  # every row but the first of its copies
    assert seen["whole"] == "refused"  # so the limit was one
    assert "read from disk in each iteration" in ended.stdout
