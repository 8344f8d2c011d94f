"""Clusters of clusters, resampling, and spherical k-means."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssltransfer.kmeans import ArraySource, hierarchical_kmeans, kmeans
from ssltransfer.training.checkpoint import Checkpoint

OPTIONS: dict[str, Any] = {"init": "k-means++", "max_iter": 20, "seed": 3}


def blobs(n: int = 1200, dims: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(30, dims)) * 3
    return (means[rng.integers(30, size=n)] + rng.normal(size=(n, dims))).astype(np.float32)


def test_levels_are_k_means_of_the_centroids_below():
    x = blobs()
    levels = hierarchical_kmeans(ArraySource(x), (40, 12, 3), **OPTIONS)
    plain = kmeans(ArraySource(x), 40, **OPTIONS)
    np.testing.assert_array_equal(levels[0].centroids, plain.centroids)
    np.testing.assert_array_equal(levels[0].labels, plain.labels)
    for below, above in pairwise(levels):
        alone = kmeans(ArraySource(below.centroids), len(above.centroids), **OPTIONS)
        np.testing.assert_array_equal(above.centroids, alone.centroids)
        np.testing.assert_array_equal(above.labels, alone.labels)
        distances = ((below.centroids[:, None].astype(np.float64) - above.centroids) ** 2).sum(2)
        np.testing.assert_array_equal(above.labels, distances.argmin(1))


def test_resampling_evens_out_the_density():
    """Two equal intervals, one with fifty times as many points: half of the centroids belong into each."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(0, 1, 20_000), rng.uniform(1, 2, 400)]).astype(np.float32)[:, None]
    options = OPTIONS | {"tolerance": 0, "max_iter": 50}
    sparse = {
        steps: int((hierarchical_kmeans(ArraySource(x), (20,), resample=steps, **options)[0].centroids > 1).sum())
        for steps in (0, 5)
    }
    assert sparse[0] < 7 and 8 <= sparse[5] <= 12
    (found,) = hierarchical_kmeans(ArraySource(x), (20,), resample=2, resample_points=300, **options)
    distances = np.abs(x.astype(np.float64) - found.centroids[:, 0])
    np.testing.assert_array_equal(found.labels, distances.argmin(1))
    assert found.objective == pytest.approx((distances.min(1) ** 2).sum(), rel=1e-5)
    np.testing.assert_array_equal(found.sizes, np.bincount(found.labels, minlength=20))


def test_hierarchy_resumes_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ended after each of its checkpoints in turn."""
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "3")
    x, arguments = blobs(), {"resample": 1, "resample_points": 8, "tolerance": 0} | OPTIONS
    whole = hierarchical_kmeans(ArraySource(x), (30, 6), **arguments)
    save, count = Checkpoint.save, 0

    def killed(self: Checkpoint, state: dict[str, Any], step: int) -> None:
        nonlocal count
        save(self, state, step)
        count += 1
        raise KeyboardInterrupt

    def run() -> list[Any]:
        return hierarchical_kmeans(
            ArraySource(x), (30, 6), checkpoint_of=lambda *at: Checkpoint(tmp_path / f"{at}.pt"), **arguments
        )

    monkeypatch.setattr(Checkpoint, "save", killed)
    while True:
        try:
            found = run()
            break
        except KeyboardInterrupt:
            continue
    assert count > 6
    for one, other in zip(whole, found, strict=True):
        assert one.centroids.tobytes() == other.centroids.tobytes()
        assert one.labels.tobytes() == other.labels.tobytes()


@pytest.mark.parametrize("backend", ["torch", "faiss"])
@pytest.mark.parametrize("init", ["pca", "random"])
def test_spherical_k_means_maximizes_cosines(backend: str, init: str):
    x = blobs(400) * np.random.default_rng(2).uniform(0.1, 10, (400, 1)).astype(np.float32)
    found = kmeans(ArraySource(x), 10, spherical=True, init=init, backend=backend, tolerance=0, max_iter=100)  # type: ignore[arg-type]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-5)
    cosines = unit @ found.centroids.T
    np.testing.assert_array_equal(found.labels, cosines.argmax(1))
    assert found.objective == pytest.approx((2 - 2 * cosines.max(1)).sum(), rel=1e-3)
    # A fixed point: each centroid is the direction of the sum of its points.
    sums = np.stack([unit[found.labels == cluster].sum(0) for cluster in range(10)])
    sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    np.testing.assert_allclose(found.centroids, sums, atol=1e-4)
