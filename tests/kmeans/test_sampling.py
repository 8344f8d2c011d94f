"""Balanced sampling from clusters of clusters."""

from __future__ import annotations

import numpy as np
import pytest

from ssltransfer.kmeans import ArraySource, balanced_sample, hierarchical_kmeans
from ssltransfer.kmeans.sampling import fair_shares, rank_in_cluster


@pytest.mark.parametrize("seed", range(20))
def test_fair_shares_are_as_equal_as_possible(seed: int):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 30, size=rng.integers(1, 12))
    for total in range(int(sizes.sum()) + 3):
        shares = fair_shares(sizes, total, rng.permutation(len(sizes)))
        assert shares.sum() == min(total, sizes.sum())
        assert (shares <= sizes).all() and (shares >= 0).all()
        # A group that is not taken whole has at most one less than any other group.
        assert all(share >= shares.max() - 1 for share, size in zip(shares, sizes, strict=True) if share < size)


def test_fair_shares_by_hand():
    order = np.array([2, 0, 1])
    assert fair_shares(np.array([10, 1, 10]), 8, order).tolist() == [3, 1, 4]
    assert fair_shares(np.array([10, 1, 10]), 1, order).tolist() == [0, 0, 1]


def test_rank_in_cluster_by_hand():
    labels, key = np.array([1, 0, 1, -1, 1]), np.array([0.5, 0.1, 0.2, 0.0, 0.5])
    assert rank_in_cluster(labels, key, 2).tolist() == [1, 0, 0, 0, 2]


def test_balanced_sample_of_planted_clusters_has_near_equal_counts():
    """Six groups from 20 to 20,000 points, found by two levels of k-means."""
    rng = np.random.default_rng(0)
    sizes = [20_000, 5000, 1000, 300, 100, 20]
    group = np.repeat(np.arange(6), sizes)
    x = (np.eye(6)[group] * 50 + rng.normal(size=(len(group), 6))).astype(np.float32)
    fine, coarse = hierarchical_kmeans(
        ArraySource(x), (60, 6), init="k-means++", resample=3, resample_points=20, tolerance=0, max_iter=30
    )
    ids = balanced_sample(fine.labels, [coarse.labels], 420)
    counts = np.bincount(group[ids], minlength=6)
    assert counts.sum() == 420 and len(set(ids.tolist())) == 420 and (np.diff(ids) > 0).all()
    assert counts.tolist() == [80, 80, 80, 80, 80, 20]
    random = np.bincount(group[rng.permutation(len(group))[:420]], minlength=6)
    assert random.max() > 250


def test_balanced_sample_divides_shares_among_the_clusters_below():
    labels = np.repeat([0, 1, 2, 3], [100, 4, 50, 50])
    parents = [np.array([0, 0, 1, 1])]
    counts = np.bincount(labels[balanced_sample(labels, parents, 40)], minlength=4)
    assert counts.tolist() == [16, 4, 10, 10]
    flat = np.bincount(labels[balanced_sample(labels, [], 40)], minlength=4)
    assert flat.tolist() == [12, 4, 12, 12]


def test_balanced_sample_is_a_function_of_its_seed():
    labels = np.random.default_rng(0).integers(0, 9, 500)
    one, same, other = (balanced_sample(labels, [], 50, seed=seed) for seed in (0, 0, 1))
    assert one.tolist() == same.tolist() != other.tolist()
    assert balanced_sample(labels, [], 1000).tolist() == list(range(500))


def test_balanced_sample_takes_the_nearest_and_never_excluded_points():
    labels, distances = np.repeat([0, 1], 10), np.tile(np.arange(10.0)[::-1], 2)
    assert balanced_sample(labels, [], 4, distances=distances).tolist() == [8, 9, 18, 19]
    labels[9] = labels[19] = -1
    assert balanced_sample(labels, [], 4, distances=distances).tolist() == [7, 8, 17, 18]
    assert balanced_sample(labels, [], 99).tolist() == [*range(9), *range(10, 19)]
