from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.metrics import read_metrics
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import Pool, Retrieval
from ssltransfer.protocols.retrieval import chance, recall_at, without_query
from ssltransfer.stages.evaluate import run


def spec(**options: object) -> EvaluationSpec:
    return EvaluationSpec(protocol=Retrieval(layer="conv4", pool=Pool(max=3), **options), test="b")


def test_recall_at_worked_example() -> None:
    # Image 0 has its class at rank 1, image 1 at rank 2, image 2 is alone in its class.
    labels, neighbors = np.array([5, 5, 7]), np.array([[1, 2], [2, 0], [0, 1]])
    assert (recall_at(labels, neighbors, 1), recall_at(labels, neighbors, 2)) == pytest.approx((1 / 3, 2 / 3))


def test_recall_equals_sklearn(chain, tmp_path: Path) -> None:
    output = tmp_path / "retrieval" / "tiny.json"
    run(spec(), model=chain.model, test=chain.train, test_features=chain.train_features, output=output, threads=1)
    found = read_metrics(output)
    x = open_features(chain.train_features)[0].read(slice(None)).astype(np.float64)
    labels = read_index(chain.train).labels
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    near = NearestNeighbors(n_neighbors=8, algorithm="brute").fit(x).kneighbors(None, return_distance=False)
    for k in (1, 2, 4, 8):
        expected = 100 * (labels[near[:, :k]] == labels[:, None]).any(1).mean()
        assert found.values[f"r@{k}"] == [pytest.approx(expected, abs=1e-4)]
    assert set(found.datasets) == {"test"} and found.train_test_overlap == 0
    own = found.details["examples"][0]
    assert len(own["neighbors"]) == 5 and all(one["train"] != own["test"] for one in own["neighbors"])


def test_without_query_handles_duplicates() -> None:
    ids = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2]])  # four equal images, of which three are found
    others, cosines = without_query(ids, np.ones(ids.shape, np.float32))
    assert others.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]] and cosines.shape == (4, 2)


def test_chance_is_of_random_other_image(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 4, 30)
    pairs = [labels[a] == labels[b] for a in range(30) for b in range(30) if a != b]
    assert chance(labels) == pytest.approx(100 * np.mean(pairs), abs=1e-4)


def test_retrieval_rejects_k_beyond_set(chain, tmp_path: Path) -> None:
    given = {"model": chain.model, "test": chain.train, "test_features": chain.train_features, "threads": 1}
    with pytest.raises(ArtifactError, match="recall at 60 of only 60 images"):
        run(spec(recall_at=(1, 60)), output=tmp_path / "a.json", **given)
    with pytest.raises(ArtifactError, match="retrieval: leave out --train"):
        run(spec(), train=chain.test, output=tmp_path / "b.json", **given)


def test_spec_requires_train_only_if_needed() -> None:
    with pytest.raises(ValueError, match="retrieval: only `test` is used; remove `train`"):
        EvaluationSpec(protocol=Retrieval(), train="a", test="b")
    with pytest.raises(ValueError, match="knn: set `train`"):
        EvaluationSpec(protocol="knn", test="b")
    with pytest.raises(ValueError, match="must hold 1"):
        Retrieval(recall_at=(2, 4))
