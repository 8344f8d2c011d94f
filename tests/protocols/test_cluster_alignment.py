from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.metrics import read_metrics
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import ClusterAlignment, Pool
from ssltransfer.kmeans import ArraySource, kmeans
from ssltransfer.protocols.cluster_alignment import match, samples, similarities
from ssltransfer.stages.evaluate import run


def best_by_trying_all(similarity: np.ndarray) -> float:
    k, c = similarity.shape
    if k <= c:
        return max(sum(similarity[i, p[i]] for i in range(k)) for p in permutations(range(c), k))
    return best_by_trying_all(similarity.T)


def test_match_worked_example() -> None:
    # Cluster 0 holds 2 cats and a dog, cluster 1 holds 3 cats. One of them must take the dogs: 1/3 + 1 > 2/3 + 0.
    similarity = similarities(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 0, 0, 0]), 2, 2)
    assert similarity.tolist() == [[pytest.approx(2 / 3), pytest.approx(1 / 3)], [1, 0]]
    assert match(similarity).tolist() == [1, 0]


@pytest.mark.parametrize(("k", "classes"), [(5, 5), (6, 4), (3, 5)])
def test_match_equals_exhaustive_search(rng: np.random.Generator, k: int, classes: int) -> None:
    clusters, labels = rng.integers(0, k, 60), rng.integers(0, classes, 60)
    similarity = similarities(clusters, labels, k, classes)
    for cluster in range(k):
        for label in range(classes):
            both = ((clusters == cluster) & (labels == label)).sum()
            assert similarity[cluster, label] == both / (clusters == cluster).sum()
    mapping = match(similarity)
    named = mapping[mapping >= 0]
    assert len(set(named)) == len(named) == min(k, classes)
    total = sum(similarity[cluster, label] for cluster, label in enumerate(mapping) if label >= 0)
    assert total == pytest.approx(best_by_trying_all(similarity))


def test_similarities_of_empty_cluster_are_zero() -> None:
    similarity = similarities(np.array([0, 0, 2]), np.array([1, 1, 0]), 3, 2)
    assert similarity.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert match(similarity).tolist() == [1, -1, 0]


def test_samples_are_drawn_at_random_from_aligned_clusters() -> None:
    clusters = np.arange(3000) % 30
    aligned = np.arange(1, 29)
    paths = [f"{i}.jpg" for i in range(3000)]
    shown = samples(clusters, aligned, paths, seed=0)
    assert len(shown) == 12 and set(shown) <= set(aligned.tolist()) and sorted(shown) != list(range(1, 13))
    for cluster, images in shown.items():
        assert len(set(images)) == len(images) == 12
        assert {clusters[paths.index(path)] for path in images} == {cluster}
    assert shown == samples(clusters[::-1], aligned, paths[::-1], seed=0) != samples(clusters, aligned, paths, seed=1)
    assert samples(np.array([2, 2, 5]), np.array([2, 7]), paths, seed=0).keys() == {2}


def test_cluster_alignment_equals_numpy(chain, tmp_path: Path) -> None:
    output = tmp_path / "ca" / "tiny.json"
    protocol = ClusterAlignment(layer="conv4", pool=Pool(max=3), max_iter=3)
    run(
        EvaluationSpec(protocol=protocol, train="a", test="b", seeds=(0, 1)),
        model=chain.model,
        train=chain.train,
        test=chain.test,
        train_features=chain.train_features,
        test_features=chain.test_features,
        output=output,
        threads=1,
    )
    found = read_metrics(output)
    train, test = read_index(chain.train), read_index(chain.test)
    stores = (open_features(path)[0] for path in (chain.train_features, chain.test_features))
    x, y = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in
            (store.read(slice(None)).astype(np.float32) for store in stores))  # fmt: skip
    for seed, value in zip((0, 1), found.values["accuracy"], strict=True):
        clustering = kmeans(ArraySource(x), 12, max_iter=3, tolerance=0, seed=seed)
        nearest = cdist(y, clustering.centroids).argmin(1)
        mapping = match(similarities(clustering.labels, train.labels, 12, 12))
        assert value == pytest.approx(100 * (mapping[nearest] == test.labels).mean(), abs=1e-4)
    shown = [one for one in found.known_details.clusters if one.test]
    clustering = kmeans(ArraySource(x), 12, max_iter=3, tolerance=0, seed=0)
    nearest = cdist(y, clustering.centroids).argmin(1)
    assert {one.cluster for one in shown} == set(nearest.tolist())
    assert all(nearest[test.paths.index(path)] == one.cluster for one in shown for path in one.test)
    assert sum(found.details["sizes"]) == 60 and len(found.details["clusters"]) == 12
