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


@pytest.mark.parametrize(("budget", "block"), [(1 << 30, 1 << 20), (1 << 15, 64), (1 << 12, 64)])
def test_exactly_one_of_each_group_of_near_duplicates_is_kept(monkeypatch: pytest.MonkeyPatch, budget: int, block: int):
    """With clusters in one group, in several, or in pieces; in one block or row by row."""
    monkeypatch.setattr(duplicates, "BLOCK_FLOATS", block)
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


def test_near_duplicates_of_other_clusters_are_kept():
    x = np.array([[1, 0], [1, 0], [1, 0.001], [0, 1]], np.float32)
    near = near_duplicates(ArraySource(x), np.array([0, 1, 0, 0]), np.array([0.2, 0, 0.1, 0]), 0.9)
    assert near.tolist() == [2, -1, -1, -1]
