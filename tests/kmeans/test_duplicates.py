"""Near duplicates within clusters."""

from __future__ import annotations

import numpy as np
import pytest

from ssltransfer.kmeans import ArraySource, duplicates, kmeans, near_duplicates


def planted(groups: int = 12, copies: int = 5, alone: int = 300, dims: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Random points, some of them several times with noise and another length; and the group of each point."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(groups + alone, dims))
    group = np.concatenate([np.repeat(np.arange(groups), copies), np.arange(groups, groups + alone)])
    noisy = x[group] + rng.normal(size=(len(group), dims)) * 0.01
    order = rng.permutation(len(group))
    return (noisy * rng.uniform(1, 9, (len(group), 1))).astype(np.float16)[order], group[order]


@pytest.mark.parametrize(("budget", "tile"), [(1 << 30, 1024), (1 << 16, 8), (1 << 14, 8), (1 << 12, 1)])
def test_exactly_one_of_each_group_of_near_duplicates_is_kept(monkeypatch: pytest.MonkeyPatch, budget: int, tile: int):
    """With clusters in one group, in several, or in pieces; in one tile or in many."""
    monkeypatch.setattr(duplicates, "TILE", tile)
    x, group = planted()
    found = kmeans(ArraySource(x), 4, spherical=True, init="random")
    near = near_duplicates(ArraySource(x), found.labels, found.distances, 0.99, budget=budget)
    kept = group[near < 0]
    assert sorted(kept.tolist()) == list(range(312))
    removed = np.flatnonzero(near >= 0)
    assert len(removed) == 12 * 4
    np.testing.assert_array_equal(group[removed], group[near[removed]])
    for points in (np.flatnonzero(group == number) for number in range(12)):
        assert near[points[found.distances[points].argmin()]] == -1  # the one nearest to the centroid


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_near_duplicates_do_not_depend_on_the_budget(monkeypatch: pytest.MonkeyPatch, dtype: type):
    """Points similar to several others, in a large and in small clusters: the first one is found."""
    monkeypatch.setattr(duplicates, "TILE", 16)
    rng = np.random.default_rng(0)
    x: np.ndarray = rng.normal(size=(900, 3)).astype(dtype)
    distances = rng.random(900)
    labels = np.repeat([0, 1, 2], [700, 150, 50])
    unit = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    expected = np.full(900, -1)
    for point in range(900):
        before = np.flatnonzero((labels == labels[point]) & (distances < distances[point]))
        similar = before[unit[before] @ unit[point] > 0.95]
        expected[point] = similar[distances[similar].argmin()] if len(similar) else -1
    assert 0 < (expected < 0).sum() < 450
    for points in (10_000, 700, 699, 300, 64, 1):
        found = near_duplicates(ArraySource(x), labels, distances, 0.95, budget=16 * 3 * points)
        np.testing.assert_array_equal(found, expected)


def test_near_duplicates_of_other_clusters_are_kept():
    x = np.array([[1, 0], [1, 0], [1, 0.001], [0, 1]], np.float32)
    near = near_duplicates(ArraySource(x), np.array([0, 1, 0, 0]), np.array([0.2, 0, 0.1, 0]), 0.9)
    assert near.tolist() == [2, -1, -1, -1]
