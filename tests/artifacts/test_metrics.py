"""Metrics: one form, read as written, and no number that is none."""

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from ssltransfer.artifacts.files import ArtifactError, write_json
from ssltransfer.artifacts.metrics import DatasetRef, Metrics, read_metrics, write_metrics

METRICS = Metrics(
    protocol={"name": "knn", "k": 20},
    model="cc-jigsawpp",
    evaluation="objects-nn",
    primary_metric="top1",
    unit="%",
    values={"top1": [41.5, 43.25, 40.0], "top5": [80.0]},
    seeds=[0, 1, 2],
    datasets={"test": DatasetRef("objects-val", 600, "f1")},
    chance=8.3,
    train_test_overlap=2,
    details={"curve": [[1, 0.5], [2, 0.25]]},
    inputs={"model": ["d1"]},
)


def test_metrics_round_trip(tmp_path: Path) -> None:
    write_metrics(tmp_path / "a.json", METRICS)
    write_metrics(tmp_path / "b.json", METRICS)
    assert read_metrics(tmp_path / "a.json") == METRICS
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_metrics_mean_and_std_over_seeds() -> None:
    assert METRICS.mean() == pytest.approx(statistics.mean(METRICS.values["top1"]))
    assert METRICS.std() == pytest.approx(statistics.stdev(METRICS.values["top1"]))
    assert METRICS.mean("top5") == 80.0
    assert METRICS.std("top5") is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["values", "details", "chance"])
def test_write_metrics_refuses_non_finite_numbers(tmp_path: Path, value: float, where: str) -> None:
    wrong = {
        "values": replace(METRICS, values={"top1": [41.5, value]}),
        "details": replace(METRICS, details={"per class": {"cat": [1.0, value]}}),
        "chance": replace(METRICS, chance=value),
    }[where]
    with pytest.raises(ArtifactError, match=r"not finite.*cc-jigsawpp failed"):
        write_metrics(tmp_path / "a.json", wrong)
    assert not list(tmp_path.iterdir())


def test_read_metrics_refuses_other_files(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"stage": "cluster"})
    with pytest.raises(ArtifactError, match="not a file of metrics"):
        read_metrics(tmp_path / "a.json")
    for content in ([1, 2], {"stage": "evaluate", "model": "x"}, {"stage": "evaluate", "unknown": 1}):
        write_json(tmp_path / "a.json", content)
        with pytest.raises(ArtifactError, match="not a file of metrics"):
            read_metrics(tmp_path / "a.json")
