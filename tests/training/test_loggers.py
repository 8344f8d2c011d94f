"""Optional loggers: the rows of the curve, and results with the same bytes with and without them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ssltransfer.cli import main
from ssltransfer.errors import UserError
from ssltransfer.training.curve import Curve
from ssltransfer.training.loggers import LOGGERS, VARIABLE, CurveLoggers

SPEC = {
    "data": "d",
    "method": {"name": "supervised"},
    "schedule": {"batch_size": 8, "steps": 6, "lr": 0.01},
    "backbone": {"name": "resnet18", "img_size": 32, "width_mult": 0.125},
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WANDB_SILENT", "true"), ("WANDB_MODE", "offline"), ("SSLTRANSFER_WORKERS", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def train(results: Path, data: Path) -> Path:
    output = results / "student" / "s" / "manifest.json"
    words = ["--spec", json.dumps(SPEC), "--data", str(data), "--output", str(output), "--threads", "1"]
    assert main(["student", *words]) == 0
    return output


def installed(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


def rows_of(results: Path, name: str, keys: list[str]) -> dict[str, list[tuple[int, float]]]:
    """Key -> (step, value) as the logger's own reader finds them."""
    found: dict[str, list[tuple[int, float]]] = {}
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(results / "tensorboard" / "student" / "s"))
        events.Reload()
        found = {key: [(one.step, one.value) for one in events.Scalars(key)] for key in events.Tags()["scalars"]}
    elif name == "mlflow":
        import mlflow

        client = mlflow.MlflowClient(f"sqlite:///{results}/mlflow.db")
        experiment = client.get_experiment_by_name("ssltransfer")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.run_name == "student/s"
        found = {key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)] for key in keys}
    return found


@pytest.mark.parametrize("name", LOGGERS)
def test_logger_gets_the_rows_and_changes_no_byte(
    name: str, objects_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(name)
    plain = train(tmp_path / "plain", objects_path)
    monkeypatch.setenv(VARIABLE, name)
    logged = train(tmp_path / "logged", objects_path)
    assert plain.read_bytes() == logged.read_bytes()
    for file in ("backbone.safetensors", "curve.jsonl"):
        assert plain.with_name(file).read_bytes() == logged.with_name(file).read_bytes()
    rows: list[dict[str, Any]] = list(map(json.loads, logged.with_name("curve.jsonl").read_text().splitlines()))
    assert len(rows) == 6
    if name == "wandb":
        assert list((tmp_path / "logged" / "wandb").glob("offline-run-*/*.wandb"))
        return
    found = rows_of(tmp_path / "logged", name, list(rows[0]))
    for key in rows[0]:
        assert [step for step, _ in found[key]] == [row["step"] for row in rows]
        assert [value for _, value in found[key]] == pytest.approx([row[key] for row in rows], rel=1e-6)
    assert found.keys() == rows[0].keys()


@pytest.mark.parametrize("name", LOGGERS)
def test_missing_logger_names_its_extra(
    name: str, tmp_path: Path, objects_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv(VARIABLE, name)
    output = tmp_path / "student" / "s" / "manifest.json"
    words = ["--spec", json.dumps(SPEC), "--data", str(objects_path), "--output", str(output), "--threads", "1"]
    assert main(["student", *words]) == 1
    assert capsys.readouterr().err == (
        f"ssltransfer student: the logger {name} needs {name}, which is not installed; run: pip install "
        f"'ssltransfer[{name}]'.\n"
    )


def test_unknown_logger_is_refused(
    tmp_path: Path, objects_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "tensorbord")
    words = ["--spec", json.dumps(SPEC), "--data", str(objects_path), "--output", str(tmp_path / "manifest.json")]
    assert main(["student", *words, "--threads", "1"]) == 1
    assert "SSLTRANSFER_LOGGERS names 'tensorbord'; did you mean 'tensorboard'?" in capsys.readouterr().err


class Recorded:
    """A logger that keeps its rows, and fails at a step."""

    def __init__(self, results: Path, name: str):
        self.results, self.name = results, name
        self.steps: list[int] = []
        runs.append(self)

    def add(self, step: int, row: object) -> None:
        if step == 4:
            raise ConnectionError("no route")
        self.steps.append(step)


runs: list[Any] = []


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    runs.clear()
    monkeypatch.setitem(LOGGERS, "recorded", Recorded)
    monkeypatch.setenv(VARIABLE, " recorded ,")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("student/cc/work/0123456789abcdef0123456789abcdef", "student/cc"),
        ("evaluate/linear/work/cc/0123456789abcdef0123456789abcdef/seed-1", "evaluate/linear/cc/seed-1"),
    ],
)
def test_runs_are_named_after_stage_and_name(folder: str, name: str, tmp_path: Path, recorded: None) -> None:
    CurveLoggers(tmp_path / "work" / folder)
    assert (runs[0].results, runs[0].name) == (tmp_path / "work", name)
    CurveLoggers(None)
    assert len(runs) == 1, "only the first process logs"


def test_restart_logs_the_rows_before_it_again(tmp_path: Path, recorded: None) -> None:
    killed = Curve(100, tmp_path / "curve.jsonl")
    killed.add_row({"step": 1})
    state = json.loads(json.dumps(killed.state_dict()))
    killed.add_row({"step": 2})
    resumed = Curve(100, tmp_path / "curve.jsonl")
    resumed.load_state_dict(state)
    resumed.add_row({"step": 3})
    assert [run.steps for run in runs] == [[1, 2], [1, 3]]


def test_failing_logger_is_given_up(tmp_path: Path, recorded: None, caplog: pytest.LogCaptureFixture) -> None:
    loggers = CurveLoggers(tmp_path)
    loggers.log([{"iteration": step} for step in range(1, 7)])
    loggers.log([{"iteration": step} for step in range(1, 8)])
    assert runs[0].steps == [1, 2, 3]
    assert [record.getMessage() for record in caplog.records].count(
        "the logger recorded failed and gets no more rows: no route"
    ) == 1


def test_logger_that_cannot_start_is_refused(tmp_path: Path, recorded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(results: Path, name: str) -> Recorded:
        raise ConnectionError("no route")

    monkeypatch.setitem(LOGGERS, "recorded", fails)
    with pytest.raises(UserError, match=r"the logger recorded cannot start \(no route\); fix it"):
        CurveLoggers(tmp_path)
