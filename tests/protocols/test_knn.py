from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.metrics import DatasetRef, read_metrics
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import Knn, Pool
from ssltransfer.kmeans import ArraySource, PointLoader
from ssltransfer.protocols.knn import vote
from ssltransfer.protocols.knn_search import topk_products
from ssltransfer.protocols.subsets import stratified
from ssltransfer.stages.evaluate import run

CPU = torch.device("cpu")


def points(values: np.ndarray, rows: int | None = None, *, normalize: bool = True) -> PointLoader:
    source = ArraySource(values)
    source.rows = rows or len(values)
    return PointLoader(source, 4, normalize=normalize, device=CPU, budget=1 << 30, where="test")


@pytest.mark.parametrize("rows", [7, 50, 300])
@pytest.mark.parametrize("k", [1, 12])
def test_topk_equals_sklearn_for_any_block_size(rng: np.random.Generator, k: int, rows: int) -> None:
    gallery, queries = (rng.normal(size=(n, 16)).astype(np.float32) for n in (300, 40))
    values, ids = topk_products(points(gallery, rows), points(queries).take(np.arange(40)), k)
    distances, expected = (
        NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(gallery).kneighbors(queries)
    )
    assert np.array_equal(ids.numpy(), expected)
    assert np.allclose(1 - values.numpy(), distances, atol=1e-5)


@pytest.mark.parametrize("rows", [3, 5, 64])
def test_topk_breaks_ties_by_sample(rng: np.random.Generator, rows: int) -> None:
    few = np.eye(4, dtype=np.float32)
    which = rng.integers(0, 4, 64)
    _, ids = topk_products(points(few[which], rows), torch.from_numpy(few), 5)
    for query in range(4):
        assert ids[query].tolist() == np.flatnonzero(which == query)[:5].tolist()


def test_vote_majority_and_ties() -> None:
    labels = np.array([[0, 1, 1, 2], [2, 0, 0, 2], [3, 4, 5, 6], [1, 0, 0, 0]])
    assert vote(labels, np.ones(labels.shape, np.float32), None).tolist() == [1, 2, 3, 0]


def test_vote_with_temperature_equals_dino(rng: np.random.Generator) -> None:
    labels, cosines = rng.integers(0, 5, (60, 20)), np.sort(rng.uniform(-1, 1, (60, 20)), 1)[:, ::-1].astype(np.float32)
    weights = torch.from_numpy(cosines.copy()).double().div(0.07).exp()
    onehot = torch.nn.functional.one_hot(torch.from_numpy(labels), 5)
    expected = (onehot * weights[:, :, None]).sum(1).argmax(1)
    assert vote(labels, cosines, 0.07).tolist() == expected.tolist()
    assert vote(labels, cosines, 1e-9).tolist() == labels[:, 0].tolist()


@pytest.mark.parametrize("k", [1, 5])
def test_knn_equals_sklearn(chain, tmp_path: Path, k: int) -> None:
    output = tmp_path / "nn" / "tiny.json"
    spec = EvaluationSpec(protocol=Knn(k=k, layer="conv4", pool=Pool(max=3)), train="a", test="b", seeds=(0, 1))
    given = {"train_features": chain.train_features, "test_features": chain.test_features, "threads": 1}
    run(spec, model=chain.model, train=chain.train, test=chain.test, output=output, **given)
    found = read_metrics(output)
    train, test = read_index(chain.train), read_index(chain.test)
    x, y = (
        open_features(path)[0].read(slice(None)).astype(np.float64)
        for path in (chain.train_features, chain.test_features)
    )
    if k == 1:
        expected = (
            KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(x, train.labels).score(y, test.labels)
        )
        assert found.values["accuracy"] == [pytest.approx(100 * expected, abs=1e-4)]
    assert (found.model, found.evaluation, found.seeds, found.train_test_overlap) == ("tiny", "nn", [0], 0)
    assert found.datasets["test"] == DatasetRef("b", 30, test.fingerprint)
    assert np.sum(found.details["confusion"]) == 30
    first = found.details["examples"][0]["neighbors"]
    assert [near["similarity"] for near in first] == sorted((near["similarity"] for near in first), reverse=True)
    assert all(near["path"] == train.paths[near["train"]] for near in first)
    before = output.read_bytes()
    run(spec, model=chain.model, train=chain.train, test=chain.test, output=output, **given)
    assert output.read_bytes() == before


def test_several_k_equal_one_job_each(chain, tmp_path: Path) -> None:
    given = {"train_features": chain.train_features, "test_features": chain.test_features, "threads": 1}
    found = {}
    for k in ((10, 1, 40), 10, 1, 40):
        protocol = Knn(k=k, temperature=0.07, layer="conv4", pool=Pool(max=3))
        spec, output = EvaluationSpec(protocol=protocol, train="a", test="b"), tmp_path / str(k) / "tiny.json"
        run(spec, model=chain.model, train=chain.train, test=chain.test, output=output, **given)
        found[k] = read_metrics(output).values
    first, *others = found.values()
    assert first == {"accuracy": first["k10"], **{f"k{k}": found[k]["accuracy"] for k in (10, 1, 40)}}
    assert len({values["accuracy"][0] for values in others}) > 1


def test_knn_rejects_inconsistent_inputs(chain, tmp_path: Path) -> None:
    def measure(**changed: object) -> None:
        protocol = Knn(layer="conv4", pool=Pool(max=3), **changed.pop("options", {}))  # type: ignore[arg-type]
        spec = EvaluationSpec(protocol=protocol, train="a", test="b")
        given = {
            "model": chain.model, "train": chain.train, "test": chain.test,
            "train_features": chain.train_features, "test_features": chain.test_features,
        }  # fmt: skip
        run(spec, output=tmp_path / "nn" / "m.json", threads=1, **(given | changed))

    with pytest.raises(ArtifactError, match="belong to another index"):
        measure(test_features=chain.train_features)
    with pytest.raises(ArtifactError, match="other weights"):
        measure(model=chain.full_model)
    with pytest.raises(ArtifactError, match="also occur in the training set a"):
        measure(test=chain.train, test_features=chain.train_features)
    with pytest.raises(ArtifactError, match="k is 61 but there are 60"):
        measure(options={"k": 61})
    with pytest.raises(ArtifactError, match="give --train-features"):
        measure(train_features=None)
    assert not (tmp_path / "nn" / "m.json").exists()


def test_knn_draws_label_subset_per_seed(chain, tmp_path: Path) -> None:
    protocol = Knn(layer="conv4", pool=Pool(max=3), label_subset={"per_class": 1})
    given = {"train_features": chain.train_features, "test_features": chain.test_features, "threads": 1}
    spec = EvaluationSpec(protocol=protocol, train="a", test="b", seeds=(0, 1, 2))
    run(spec, model=chain.model, train=chain.train, test=chain.test, output=tmp_path / "nn" / "t.json", **given)
    found = read_metrics(tmp_path / "nn" / "t.json")
    train, test = read_index(chain.train), read_index(chain.test)
    x, y = (open_features(path)[0].read(slice(None)) for path in (chain.train_features, chain.test_features))
    for seed, value in zip(found.seeds, found.values["accuracy"], strict=True):
        chosen = stratified(train.labels, 1, seed)
        assert sorted(train.labels[chosen]) == sorted(set(train.labels))
        classifier = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(x[chosen], train.labels[chosen])
        assert value == pytest.approx(100 * classifier.score(y, test.labels), abs=1e-4)
    assert len(set(found.values["accuracy"])) > 1
