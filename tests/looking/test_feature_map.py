"""The map is a function of features and seed, and keeps groups together."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ssltransfer.extras import MissingExtraError
from ssltransfer.looking.feature_map import Projection, project


@pytest.mark.parametrize("projection", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_groups_stay_together_and_seeds_repeat(projection: Projection) -> None:
    random, groups = np.random.default_rng(0), np.arange(60) % 3
    features = (8 * np.eye(16)[groups] + random.standard_normal((60, 16))).astype(np.float16)
    places = project(features, 0, projection)
    assert places.min() == 0 and places.max() == 1000
    distances = ((places[:, None] - places[None]) ** 2).sum(2).astype(float)
    np.fill_diagonal(distances, np.inf)
    assert (groups[distances.argmin(1)] == groups).mean() > 0.9
    assert np.array_equal(project(features, 0, projection), places)


@pytest.mark.parametrize("projection", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
@pytest.mark.parametrize("features", [np.ones((1, 4)), np.eye(3), np.eye(5), np.ones((9, 4)), np.zeros((9, 1))])
def test_few_or_equal_images_have_places(features: np.ndarray, projection: Projection) -> None:
    places = project(features.astype(np.float32), 0, projection)
    assert places.shape == (len(features), 2) and places.min() >= 0 and places.max() <= 1000


def test_umap_without_its_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"projection umap needs umap.*'ssltransfer\[umap\]'"):
        project(np.eye(6, dtype=np.float32), 0, "umap")
