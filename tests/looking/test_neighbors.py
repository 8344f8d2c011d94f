"""Planted near-duplicates and outliers are found, at any scale of cosines; compared with all pairs in numpy."""

from __future__ import annotations

import numpy as np
import torch

from ssltransfer.kmeans import ArraySource
from ssltransfer.looking.neighbors import NEIGHBORS, Neighbors, duplicate_groups, find_neighbors, outliers


def planted(offset: float = 0.0) -> np.ndarray:
    """200 points. 7 and 150 are near-duplicates, and so are 20, 21 and 22. 99 is opposite to all others."""
    random = np.random.default_rng(0)
    points = random.standard_normal((200, 32)) + 3 * np.eye(32)[0] + offset
    points[150] = 1.7 * points[7] + 0.01 * random.standard_normal(32)
    points[21:23] = points[20] + 0.01 * random.standard_normal((2, 32))
    points[99] = -points.mean(0)
    return points.astype(np.float32)


def found(points: np.ndarray) -> Neighbors:
    return find_neighbors(ArraySource(points), torch.device("cpu"), "points")


def test_neighbors_are_those_of_all_pairs() -> None:
    points = planted()
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    neighbors = found(points)
    assert np.array_equal(neighbors.ids, np.argsort(-cosines, axis=1)[:, :NEIGHBORS])
    assert np.allclose(neighbors.cosines, -np.sort(-cosines, axis=1)[:, :NEIGHBORS], atol=1e-6)


def test_near_duplicates_and_outliers_are_found_at_any_scale() -> None:
    for offset in (0.0, 5.0):  # with an offset all cosines are high, as those of a random network
        neighbors = found(planted(offset))
        groups = duplicate_groups(neighbors)
        assert sorted(group.members for group in groups[:2]) == [[7, 150], [20, 21, 22]]
        assert len(groups) < 6 and all(group.cosine > 0.99 for group in groups[:2])
        assert outliers(neighbors, 3)[0][0] == 99


def test_many_equal_images_are_one_group() -> None:
    points = planted()
    points[30:50] = points[30]
    neighbors = found(points)
    assert not (neighbors.ids == np.arange(200)[:, None]).any()
    assert [group.members for group in duplicate_groups(neighbors) if 35 in group.members] == [list(range(30, 50))]


def test_equal_images_are_one_group_where_most_are_equal() -> None:
    for source in range(5):  # the cosine of two equal vectors can be less than 1 by rounding
        points = planted()
        points[30:180] = points[source]
        groups = [group.members for group in duplicate_groups(found(points))]
        assert [source, *range(30, 180)] in groups


def test_datasets_of_one_or_two_images() -> None:
    assert duplicate_groups(found(planted()[:1])) == [] == outliers(found(planted()[:1]), 3)
    assert [sample for sample, _ in outliers(found(planted()[:2]), 3)] == [0, 1]
