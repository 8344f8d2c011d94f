from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.metrics import read_metrics
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import LogReg, Pool
from ssltransfer.kmeans import ArraySource, PointLoader
from ssltransfer.protocols.logreg import Objective, minimize, standardization
from ssltransfer.protocols.subsets import stratified
from ssltransfer.stages.evaluate import run
from ssltransfer.training.checkpoint import Checkpoint


def points(values: np.ndarray, rows: int | None = None) -> PointLoader:
    source = ArraySource(values)
    source.rows = rows or len(values)
    return PointLoader(source, 4, normalize=False, device=torch.device("cpu"), budget=1 << 30, where="test")


@pytest.fixture
def blobs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(0, 4, 200)
    return (rng.normal(size=(4, 9))[labels] + rng.normal(size=(200, 9))).astype(np.float32), labels


def sklearn_minimum(x: np.ndarray, labels: np.ndarray, penalty: float, tol: float = 1e-9) -> np.ndarray:
    model = LogisticRegression(C=1 / (2 * len(x) * penalty), tol=tol, max_iter=5000)
    model.fit(x.astype(np.float64), labels)
    return np.concatenate([model.coef_, model.intercept_[:, None]], axis=1)


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_minimum_equals_sklearn(blobs: tuple[np.ndarray, np.ndarray], tmp_path: Path, penalty: float) -> None:
    x, labels = blobs
    objective = Objective(points(x, 64), labels, 4, (penalty,))
    curve = minimize(objective, 800, Checkpoint(tmp_path / "c.pt"))
    found = objective.parameters[0].numpy().copy()
    value = float(objective())
    expected = sklearn_minimum(x, labels, penalty)
    expected[:, -1] -= expected[:, -1].mean() - found[:, -1].mean()  # a common bias changes nothing
    assert np.allclose(found, expected, atol=2e-3 / penalty**0.25)
    objective.parameters[0].copy_(torch.from_numpy(expected))
    assert value == pytest.approx(float(objective()), abs=1e-7)
    assert curve[-1]["update"] < 800 and curve[-1]["gradient"] < 1e-4


def test_gradient_equals_finite_differences(blobs: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> None:
    x, labels = blobs
    objective = Objective(points(x, 77), labels, 4, (0.05,))
    objective.parameters.copy_(torch.from_numpy(rng.normal(size=(1, 4, 10))))
    objective()
    gradient = objective.parameters.grad[0].clone()  # type: ignore[index]
    weights = objective.parameters[0].clone().requires_grad_()
    scores = torch.from_numpy(x).double() @ weights[:, :-1].T + weights[:, -1]
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels)) + 0.05 * weights[:, :-1].square().sum()
    loss.backward()
    assert torch.allclose(gradient, weights.grad, atol=1e-6)  # type: ignore[arg-type]


def test_grid_minimizes_each_objective_without_validation_images(
    blobs: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    x, labels = blobs
    penalties, without = (1e-1, 1e-2, 1e-3), np.arange(0, 200, 10)
    grid = Objective(points(x, 64), labels, 4, penalties, without=without)
    minimize(grid, 800, Checkpoint(tmp_path / "grid.pt"))
    left = np.delete(np.arange(200), without)
    for place, penalty in enumerate(penalties):
        alone = Objective(points(x[left]), labels[left], 4, (penalty,))
        minimize(alone, 800, Checkpoint(tmp_path / f"{place}.pt"))
        assert float(grid()[place]) == pytest.approx(float(alone()), abs=1e-7)
        assert torch.allclose(grid.parameters[place], alone.parameters[0], atol=2e-3 / penalty**0.25)
        assert (grid.predict(points(x))[place] == alone.predict(points(x))[0]).mean() > 0.98


def test_standardization_equals_sklearn(rng: np.random.Generator) -> None:
    x = (rng.normal(size=(100, 5)) * [1, 10, 0, 1, 3] + [0, 5, 2, 1000, 0]).astype(np.float32)
    center, scale = standardization(points(x, 33))
    assert np.allclose(
        ((points(x).take(np.arange(100)) - center) / scale).numpy(), StandardScaler().fit_transform(x), atol=1e-3
    )


def test_minimize_resumes_to_same_bits(
    blobs: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = blobs
    quiet = Objective(points(x), labels, 4, (1e-4,))
    curve = minimize(quiet, 800, Checkpoint(tmp_path / "quiet.pt"))
    assert len(curve) > 2
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "1")
    resumed: list[dict[str, float]] = []
    for stop_at in (1, 2, 1000):
        objective = Objective(points(x), labels, 4, (1e-4,))
        checkpoint = Checkpoint(tmp_path / "cut.pt")
        save = checkpoint.save

        def save_and_stop(state: dict, step: int, stop_at: int = stop_at, save=save) -> None:
            save(state, step)
            if len(state["curve"]) == stop_at:
                raise KeyboardInterrupt

        checkpoint.save = save_and_stop  # type: ignore[method-assign]
        try:
            resumed = minimize(objective, 800, checkpoint)
        except KeyboardInterrupt:
            continue
    assert resumed == curve
    assert torch.equal(objective.parameters, quiet.parameters)


def test_minimize_stops_at_max_iter(blobs: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    curve = minimize(Objective(points(blobs[0]), blobs[1], 4, (1e-6,)), 25, Checkpoint(tmp_path / "c.pt"))
    assert [row["update"] for row in curve] == [20, 25]


@pytest.mark.parametrize(("standardize", "penalty"), [(False, 0.3), (True, None), (False, (30.0, 0.3))])
def test_logreg_equals_sklearn(
    chain, tmp_path: Path, standardize: bool, penalty: float | tuple[float, ...] | None
) -> None:
    output = tmp_path / "lbfgs" / "tiny.json"
    protocol = LogReg(layer="conv4", pool=Pool(max=3), standardize=standardize, l2=penalty)
    run(
        EvaluationSpec(protocol=protocol, train="a", test="b", seeds=(3,)),
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
    x, y = (store.read(slice(None)).astype(np.float64) for store in stores)
    if standardize:
        scaler = StandardScaler().fit(x)
        x, y = scaler.transform(x), scaler.transform(y)
    if isinstance(penalty, tuple):
        held = stratified(train.labels, 0.1, 3)
        rest = np.setdiff1d(np.arange(len(x)), held)
        for row, one in zip(found.details["grid"], penalty, strict=True):
            fit = sklearn_minimum(x[rest], train.labels[rest], one, tol=1e-7)
            right = (x[held] @ fit[:, :-1].T + fit[:, -1]).argmax(1) == train.labels[held]
            assert row == {"l2": one, "val": pytest.approx(100 * right.mean(), abs=1e-4)}
        penalty = max(found.details["grid"], key=lambda row: row["val"])["l2"]
    penalty = penalty or 100 / (x.shape[1] * 12)
    assert found.details["l2"] == pytest.approx(penalty)
    expected = sklearn_minimum(x, train.labels, penalty, tol=1e-7)
    scores = y @ expected[:, :-1].T + expected[:, -1]
    assert found.values["accuracy"] == [pytest.approx(100 * (scores.argmax(1) == test.labels).mean(), abs=1e-4)]
    assert found.details["converged"]
