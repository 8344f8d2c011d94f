from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index, read_index, write_index
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import Knn, LogReg, Pool
from ssltransfer.protocols.base import classes_of, evenly_spaced
from ssltransfer.protocols.classification_scores import per_class_metrics
from ssltransfer.stages.evaluate import run


def index(labels: list[int], classes: list[str]) -> Index:
    n = len(labels)
    names = [f"{i}.jpg" for i in range(n)]
    return Index(Path("x"), names, np.array(labels, np.int32), classes, np.ones((n, 2), np.int32), names)


def test_classes_of_renumbers_test_labels_by_name() -> None:
    found = classes_of(index([0, 1, 2, 2], ["ant", "bee", "cat"]), index([0, 1, 1], ["cat", "ant"]), ("a", "b"))
    assert found.test.tolist() == [2, 0, 0]
    assert found.names == ["ant", "bee", "cat"]
    # "cat" is the commonest in training, one of three in test.
    assert found.chance() == pytest.approx(100 / 3, abs=1e-4)


def test_classes_of_rejects_incompatible_labels() -> None:
    good = index([0, 1], ["ant", "bee"])
    with pytest.raises(ArtifactError, match="b: class 'cow' is not in the training set a"):
        classes_of(good, index([0], ["cow"]), ("a", "b"))
    with pytest.raises(ArtifactError, match="b: not every image has a class label"):
        classes_of(good, index([-1, 0], ["ant"]), ("a", "b"))
    with pytest.raises(ArtifactError, match="a: all images have the same class"):
        classes_of(index([0, 0], ["ant", "bee"]), good, ("a", "b"))
    # A class that no test image has may be unknown.
    assert classes_of(good, index([0], ["bee", "cow"]), ("a", "b")).test.tolist() == [1]


def test_per_class_metrics_worked_example() -> None:
    classes = classes_of(index([0, 1, 2], ["ant", "bee", "cat"]), index([0, 0, 1], ["ant", "bee", "cat"]), ("a", "b"))
    found = per_class_metrics(classes, np.array([0, 1, -1]))
    assert found["per_class"] == {"ant": 50, "bee": 0, "cat": None}
    assert found["confusion"] == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_evenly_spaced_ids() -> None:
    assert evenly_spaced(3, 8) == [0, 1, 2]
    assert evenly_spaced(100, 4) == [0, 33, 66, 99]


def test_evaluate_rejects_features_of_other_layer_or_pooling(chain, tmp_path: Path) -> None:
    given = {
        "model": chain.model,
        "train": chain.train,
        "test": chain.test,
        "train_features": chain.train_features,
        "test_features": chain.test_features,
    }
    for protocol in (LogReg(layer="conv3", pool=Pool(max=3)), LogReg(layer="conv4")):
        with pytest.raises(ArtifactError, match="features of layer conv4"):
            run(EvaluationSpec(protocol=protocol, train="a", test="b"), output=tmp_path / "m.json", threads=1, **given)


def test_evaluate_rejects_train_test_overlap(chain, tmp_path: Path) -> None:
    # One of 30 is more than 1 %.
    train, test = read_index(chain.train), read_index(chain.test)
    digests = [train.digests[0], *test.digests[1:]]
    write_index(tmp_path / "doubled.parquet", replace(test, digests=digests))
    spec = EvaluationSpec(protocol=Knn(layer="conv4", pool=Pool(max=3)), train="a", test="b")
    with pytest.raises(ArtifactError, match="b: 1 of its 30 images also occur in the training set a"):
        run(spec, model=chain.model, train=chain.train, test=tmp_path / "doubled.parquet", output=tmp_path / "m.json")
