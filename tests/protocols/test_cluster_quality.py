from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.metrics import Metrics, read_metrics
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import ClusterQuality, Pool
from ssltransfer.kmeans import ArraySource, kmeans
from ssltransfer.protocols.cluster_quality import silhouette, stability
from ssltransfer.stages.evaluate import run


def evaluated(chain: Any, output: Path, *, seeds: tuple[int, ...] = (0,), **options: Any) -> Metrics:
    protocol = ClusterQuality(layer="conv4", pool=Pool(max=3), **options)
    run(
        EvaluationSpec(protocol=protocol, test="a", seeds=seeds),
        model=chain.model,
        test=chain.train,
        test_features=chain.train_features,
        output=output,
        threads=1,
    )
    return read_metrics(output)


def test_silhouette_worked_example() -> None:
    # Points 0 and 2 of one cluster, 10 of the other, which is alone: a = 2, b = 10 and 8, and 0 for a single point.
    rows = np.array([[0.0], [2.0], [10.0]])
    assert silhouette(rows, np.array([0, 0, 1]), normalize=False) == pytest.approx((8 / 10 + 6 / 8 + 0) / 3)
    assert silhouette(rows, np.zeros(3, int), normalize=False) is None
    assert silhouette(rows, np.arange(3), normalize=False) is None


def test_silhouette_of_normalized_rows_ignores_their_lengths(rng: np.random.Generator) -> None:
    rows, labels = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
    longer = rows * rng.uniform(1, 9, (40, 1))
    same = silhouette(rows, labels, normalize=True)
    assert silhouette(longer, labels, normalize=True) == pytest.approx(same, abs=1e-5)
    assert silhouette(longer, labels, normalize=False) != pytest.approx(same, abs=1e-5)


def test_stability_ignores_the_numbering_of_clusters() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert stability([labels, (labels + 1) % 3]) == 100
    # Labels that put all images together agree with others no more than chance does: 1, 0 and 0 for the three pairs.
    assert stability([labels, labels, np.zeros(6, int)]) == pytest.approx(100 / 3)


def test_quality_equals_sklearn(chain: Any, tmp_path: Path) -> None:
    found = evaluated(chain, tmp_path / "q" / "tiny.json", seeds=(0, 1), k=(4, 7), starts=3, max_iter=5)
    x = open_features(chain.train_features)[0].read(slice(None)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for k in (4, 7):
        for seed, silhouettes, rand in zip(
            (0, 1), found.values[f"k{k}-silhouette"], found.values[f"k{k}-stability"], strict=True
        ):
            runs = [kmeans(ArraySource(x), k, max_iter=5, seed=3 * seed + i).labels for i in range(3)]
            assert silhouettes == pytest.approx(100 * silhouette_samples(x, runs[0]).mean(), abs=0.01)
            pairs = [adjusted_rand_score(a, b) for a, b in combinations(runs, 2)]
            assert rand == pytest.approx(100 * np.mean(pairs), abs=1e-4)
    assert found.values["silhouette"] == found.values["k4-silhouette"] and found.chance == 0
    assert found.values["stability"] == found.values["k4-stability"]
    assert set(found.datasets) == {"test"}
    (line,) = found.known_details.lines
    assert line.series["stability"] == ([4, 7], [found.values[f"k{k}-stability"][0] for k in (4, 7)])


def test_the_right_number_of_clusters_is_the_most_stable_and_compact() -> None:
    x = make_blobs(400, 8, centers=5, cluster_std=0.5, random_state=1)[0].astype(np.float32)
    scores = {}
    for k in (3, 5, 9):
        runs = [kmeans(ArraySource(x), k, init="k-means++", seed=seed).labels for seed in range(4)]
        scores[k] = silhouette(x, runs[0], normalize=False) or 0.0, stability(runs)
    assert max(scores, key=lambda k: scores[k][0]) == max(scores, key=lambda k: scores[k][1]) == 5
    assert scores[5][1] == 100


def test_default_numbers_of_clusters_are_shares_of_the_images() -> None:
    assert ClusterQuality().ks(20_000) == (40, 100, 200, 400, 1000)
    assert ClusterQuality().ks(60) == (2, 3)
    assert ClusterQuality(k=7).ks(60) == (7,)


def test_as_many_clusters_as_images_are_refused(chain: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="a: 60 images cannot form 60 clusters; lower `k`"):
        evaluated(chain, tmp_path / "q" / "tiny.json", k=(4, 60))
