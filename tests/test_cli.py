"""The command line: help texts, user errors and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssltransfer import cli
from ssltransfer.cli import KINDS, build_parser, listed, main
from ssltransfer.config.methods.compress import Compress1q
from ssltransfer.config.references import references

ROOT = Path(__file__).resolve().parents[1]
STAGES = (
    "index",
    "cache",
    "motion",
    "pretext",
    "features",
    "cluster",
    "label",
    "curate",
    "student",
    "evaluate",
    "report",
)


@pytest.mark.parametrize("stage", STAGES)
def test_help_names_inputs_and_outputs(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([stage, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "->" in text and "--spec" in text and "--output" in text


@pytest.mark.parametrize("stage", cli.STAGES, ids=lambda stage: stage.name)
def test_stage_loads_the_module_of_its_name(stage: cli.Stage) -> None:
    run = stage.load()
    assert (run.__module__, run.__name__) == (f"ssltransfer.stages.{stage.name}", "run")


def test_command_line_imports_a_stage_only_when_it_runs() -> None:
    code = "import sys, ssltransfer.cli as c; c.build_parser(); print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_main_refuses_a_locale_that_garbles_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    words = ["index", "--spec", json.dumps({"format": "folder", "root": str(tmp_path)}), "--output", "i.parquet"]
    assert main(words) == 1
    assert "the locale's encoding is iso8859-1" in capsys.readouterr().err


def test_main_prints_known_errors_of_torch_as_one_sentence(
    objects_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = (
        '{"data":"d","method":{"name":"supervised"},"schedule":{"batch_size":1,"steps":2},'
        '"backbone":{"name":"resnet18","img_size":32,"width_mult":0.125}}'
    )
    words = ["student", "--spec", spec, "--data", str(objects_path), "--output", str(tmp_path / "s" / "manifest.json")]
    assert main([*words, "--threads", "1"]) == 1
    text = capsys.readouterr().err
    assert text == (
        "ssltransfer student: a batch norm needs more than one value per channel; raise batch_size, micro_batch_size "
        "or img_size.\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["index", "--spec", '{"format":"folder","root":"nowhere"}'], "nowhere: no such folder"),
        (["index", "--spec", "{"], "--spec is not a dataset"),
        (["cache", "--spec", '{"quality":0}', "--data", "i"], "quality: input should be greater than or equal to 1"),
        (["cache", "--spec", "{}", "--data", "i.parquet"], "i.parquet: missing"),
        (
            ["motion", "--spec", '{"size":[240,321]}', "--data", "i"],
            "is not a multiple of the cell size; use multiples of 8",
        ),
        (["motion", "--spec", "{}", "--data", "i.parquet"], "i.parquet: missing"),
        (["pretext", "--spec", "{"], "--spec is not valid JSON"),
        (["pretext", "--spec", "{}"], "required key is missing"),
        (
            ["features", "--spec", '{"model":"m","layer":"conv1"}', "--model", "m.json", "--data", "i"],
            "m.json: missing",
        ),
        (["cluster", "--spec", '{"features":"f","data":"d","k":5}', "--features", "f.json"], "f.json: missing"),
        (
            ["cluster", "--set", "features=f", "--set", "data=d", "--set", "k=5", "--features", "f.json"],
            "f.json: missing",
        ),
        (["cluster", "--set", "k=5", "--features", "f.json"], "--spec.features: required key is missing"),
        (["cluster", "--set", "k", "--features", "f.json"], "--set k: write KEY=VALUE"),
        (["cluster", "--set", "k=[", "--features", "f.json"], "--set k=[: the value is not YAML"),
        (["cluster", "--features", "f.json"], "give --spec or --set, and --output."),
    ],
)
def test_main_prints_user_errors_as_one_sentence(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--output", str(tmp_path / "out" / "manifest.json")]) == 1
    text = capsys.readouterr().err
    assert said in text and text.startswith(f"ssltransfer {words[0]}: ") and len(text.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("kind", ["formats", "backbones", "tasks", "methods", "protocols"])
def test_list_prints_every_option_class(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind]) == 0
    text = capsys.readouterr().out
    rows = listed(kind)
    assert len(rows) == len(KINDS[kind]) == len({name for name, _, _ in rows})
    for name, line, _ in rows:
        assert name in text and line.endswith((".", "?")), name


def test_list_prints_the_tables_of_the_papers(capsys: pytest.CaptureFixture[str]) -> None:
    """`report.tables.reference` takes these names."""
    assert main(["list", "references"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert named == list(references()) and "compress2020-table5-alexnet" in named
    # On narrow terminals the source follows on the next line.
    assert "Noroozi et al. 2018, Table 1" in " ".join(lines[:2])


@pytest.mark.parametrize(
    "words",
    [["list", "references"], ["estimate", "config/noroozi2018.yaml", "--assume"], ["--help"], ["list", "tasks"]],
)
@pytest.mark.parametrize("buffered", [True, False])
def test_output_may_end_early(words: list[str], buffered: bool) -> None:
    """As with `| head`: the reader has ended before the first line is written."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, *([] if buffered else ["-u"]), "-m", "ssltransfer.cli", *words]
    run = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (run.returncode, run.stderr) == (128 + signal.SIGPIPE, "")


def test_broken_pipe_of_a_job_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of a loader worker: not the standard output."""

    def fail(arguments: object) -> None:
        raise BrokenPipeError("worker")

    monkeypatch.setattr(cli, "_list", fail)
    with pytest.raises(BrokenPipeError, match="worker"):
        main(["list", "tasks"])


def test_config_imports_no_torch() -> None:
    """Snakemake reads it at the start of every job."""
    code = "import sys, ssltransfer.config; print(sorted({'torch', 'numpy', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("paper", ["noroozi2018", "kolesnikov2019", "doersch2017"])
def test_inputs_are_checked_without_torch(paper: str) -> None:
    """Snakemake does it before it lists the jobs."""
    code = (
        "import sys; from ssltransfer.config import read_config; "
        "from ssltransfer.planning.inputs import input_problems; "
        f"list(input_problems(read_config('config/{paper}.yaml'))); print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "False", run.stderr


def test_describe_prints_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "compress-1q"]) == 0
    text = capsys.readouterr().out
    for key, field in Compress1q.model_fields.items():
        assert key == "name" or f"  {key}: {'required' if field.is_required() else 'default'}" in text
    assert main(["describe", "compress-1"]) == 1
    assert "did you mean 'compress-1q'?" in capsys.readouterr().err


def test_every_listed_name_can_be_described(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in KINDS:
        for name, _, _ in listed(kind):
            assert main(["describe", name]) == 0
            assert f"{name} ({kind.removesuffix('s')})" in capsys.readouterr().out


def test_status_counts_results_and_shows_running_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("index/a.parquet", "pretext/p/manifest.json", "evaluate/e/p.json", "evaluate/e/p.run.json"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    for name, line, age in (("new", "step 2/9", 3), ("old", "step 9/9", 3600)):
        log = tmp_path / "logs" / "student" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"train: step 1/9\n{line}\n\n")
        os.utime(log, (time.time() - age, time.time() - age))
    assert main(["status", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        [stage, "1", "finished"] for stage in ("index", "pretext", "evaluate")
    ]
    assert lines[3:] == ["running: student/new, 3 s ago: step 2/9"]
    assert main(["status", str(tmp_path / "x")]) == 1


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.startswith("ssltransfer 0.")
