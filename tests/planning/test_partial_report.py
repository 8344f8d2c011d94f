"""The report of the results so far: at any point of a run, without what is outdated."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from ssltransfer.cli import main
from ssltransfer.config import Config, read_config
from ssltransfer.config.outputs import report_inputs
from ssltransfer.planning.partial_report import write_partial_report
from tests.helpers.workflow import snakemake, tiny, write_config

REPORT = {
    "title": "Progress",
    "tables": [{"title": "All", "columns": ["nearest", "vote"], "rows": ["puzzle", "pupil"]}],
    "figures": [{"title": "Line", "columns": ["nearest"], "lines": {"one": {"1": "puzzle", "2": "pupil"}}}],
    "claims": [{"title": "Better", "columns": ["vote"], "models": "pupil", "better_than": "puzzle"}],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and all its results."""
    folder = tmp_path_factory.mktemp("finished")
    config = tiny(report=REPORT)
    config["evaluations"]["vote"] = config["evaluations"]["nearest"] | {
        "protocol": {"name": "knn", "layer": "conv4", "pool": {"max": 2}, "k": [3, 5]}
    }
    write_config(folder, config)
    run = snakemake(folder, "--cores", "1", SSLTRANSFER_WORKERS="0")
    assert run.returncode == 0, run.stdout[-4000:]
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def outputs(config: Config) -> list[Path]:
    return sorted(
        (Path(path) for paths in report_inputs(config).values() for path in paths), key=lambda p: p.stat().st_mtime
    )


def summary() -> list[list[str]]:
    return [line.split() for line in Path("results/report/partial/summary.txt").read_text().splitlines()]


@pytest.mark.slow
def test_partial_report_at_every_point_of_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_config("config.yaml")
    paths = outputs(config)
    final = Path("results/report/index.html").read_bytes()
    for left in range(len(paths), -1, -1):
        output = write_partial_report(config)
        assert f"Progress (so far: {left} of {len(paths)} results)" in output.read_text()
        found = summary()
        measured = {name: Path(f"results/evaluate/vote/{name}.json").is_file() for name in ("puzzle", "pupil")}
        rows = {row[0]: row[1:] for row in found if row and row[0] in measured and len(row) == 3}
        for name, done in measured.items():
            assert done == (name in rows and rows[name][1] != "–")
        if left:
            paths[left - 1].unlink()
    assert Path("results/report/index.html").read_bytes() == final


@pytest.mark.slow
def test_partial_report_leaves_out_what_is_outdated(folder: Path) -> None:
    content = yaml.safe_load(Path("config.yaml").read_text())
    content["pretexts"]["puzzle"]["seed"] = 1
    write_config(folder, content)
    # As while Snakemake runs: its lock does not matter.
    Path(".snakemake/locks").mkdir(parents=True, exist_ok=True)
    Path(".snakemake/locks/0.input.lock").write_text("results/index/objects-train.parquet\n")
    assert main(["report", "--partial", "config.yaml"]) == 0
    page = Path("results/report/partial/index.html").read_text()
    assert "Progress (so far: 3 of " in page, "only the indexes"


def test_report_needs_a_spec_and_an_output(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--spec", "{}"], ["--output", "index.html"]):
        assert main(["report", *words]) == 1
        assert "give --spec or --set, and --output, or --partial CONFIG" in capsys.readouterr().err
