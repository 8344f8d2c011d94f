"""k-means by two processes equals that by one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssltransfer.kmeans import ArraySource, kmeans
from tests.helpers import HELPERS

DRIVER = HELPERS / "kmeans_process.py"
STARTS = ("random", "pca", "outliers", "levels")
Arrays = dict[str, np.ndarray]


def points() -> np.ndarray:
    rng = np.random.default_rng(3)
    means = rng.normal(size=(30, 40)) * 2 + 5
    return (means[rng.integers(30, size=3000)] + rng.normal(size=(3000, 40))).astype(np.float16)


def by_ranks(folder: Path, world: int) -> dict[str, Arrays]:
    """Run the driver as `world` processes; what they found from each start, the same in all."""
    folder.mkdir()
    commands = [[sys.executable, str(DRIVER), str(folder), str(rank), str(world)] for rank in range(world)]
    running = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for words in commands]
    for process in running:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    found = {start: [dict(np.load(folder / start / f"{rank}.npz")) for rank in range(world)] for start in STARTS}
    for first, *others in found.values():
        for other in others:
            for name, values in other.items():
                np.testing.assert_array_equal(values, first[name])
    return {start: first for start, (first, *_) in found.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Arrays]]:
    """By one process, by two, and by two again."""
    folder = tmp_path_factory.mktemp("ranks")
    np.save(folder / "points.npy", points())
    return [by_ranks(folder / name, world) for name, world in (("one", 1), ("two", 2), ("again", 2))]


@pytest.mark.parametrize("start", STARTS)
def test_kmeans_by_two_processes_equals_one(runs: list[dict[str, Arrays]], start: str) -> None:
    one, two, again = (found[start] for found in runs)
    assert two["objective"] == pytest.approx(one["objective"], rel=1e-6)
    np.testing.assert_array_equal(two["labels"], one["labels"])
    np.testing.assert_array_equal(two["moved"], one["moved"])
    np.testing.assert_array_equal(two["parents"], one["parents"])
    np.testing.assert_allclose(two["centroids"], one["centroids"], atol=1e-4)
    for name, values in again.items():
        np.testing.assert_array_equal(values, two[name])
    assert (one["empty"][0] > 0) == (start == "outliers")


def test_rank_driver_with_one_process_equals_a_plain_call(runs: list[dict[str, Arrays]]) -> None:
    one = runs[0]["random"]
    plain = kmeans(ArraySource(points()), 25, init="random", tolerance=0, seed=1)
    assert plain.objective == pytest.approx(float(one["objective"]), rel=1e-6)
