"""The console of a run: real runs of small workflows with the plugin."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from snakemake_logger_plugin_ssltransfer import running_line

WORKFLOW = """
rule all:
    input: "report/index.html"
rule index:
    output: "index/{dataset}.parquet"
    log: "logs/{dataset}.log"
    shell: "touch {output}; echo 'started\\n8 images' > {log}"
rule student:
    input: "index/birds.parquet"
    output: "student/{student}/manifest.json"
    log: "logs/{student}.log"
    shell: "cp summary.json {output}; echo trained > {log}"
rule report:
    input: "student/cc/manifest.json"
    output: "report/index.html"
    log: "logs/report.log"
    shell: "%s"
"""
SUMMARY = {"summary": {"loss": 1.25, "chance_loss": 2.0, "val_accuracy": 0.5, "lr": 0.1}}


def run(folder: Path, report: str, *arguments: str) -> str:
    """Output of a run whose report job runs `report`."""
    (folder / "Snakefile").write_text(WORKFLOW % report)
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    words = [sys.executable, "-m", "snakemake", "--cores", "1", "--logger", "ssltransfer", "--nocolor", *arguments]
    return subprocess.run(words, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout


def test_logger_prints_one_line_per_job_and_path_of_report(tmp_path: Path):
    report = "touch {output}; printf 'accuracy 12.5\\n' > report/summary.txt"
    said = run(tmp_path, report).splitlines()
    assert said[0] == "4 jobs: 1 index, 1 student, 1 report"
    results = [re.fullmatch(r"\[ *\d/4\] \d:\d\d:\d\d (.*)", line)[1] for line in said[1:4]]  # type: ignore[index]
    assert results == [
        "index/birds: 8 images",
        "student/cc: loss 1.250 (chance 2.000), val accuracy 0.500",
        "report: report/index.html",
    ]
    assert said[4:] == ["", "accuracy 12.5", f"The report: {tmp_path / 'report/index.html'}"]
    assert run(tmp_path, report).startswith("Nothing to be done")


def test_running_line_shows_whole_names_that_fit():
    name = "evaluate/" + 71 * "x"
    names = [name + "1", name + "2", "student/cc"]
    assert running_line(names, 200) == f"{names[0]}, {names[1]}, student/cc ..."
    assert running_line(names, 110) == f"{names[0]} and 2 more ..."
    assert running_line(names, 80) == "3 running ..."


def test_logger_shows_end_of_failed_log(tmp_path: Path):
    said = run(tmp_path, "echo 'ssltransfer report: the fault.' > {log}; exit 1", "--show-failed-logs")
    assert (
        "Error in report: report/index.html not made.\nLogfile logs/report.log:\nssltransfer report: the fault." in said
    )
    assert "The report:" not in said


def test_logger_leaves_dry_run_to_snakemake(tmp_path: Path):
    assert "output: report/index.html" in run(tmp_path, "touch {output}", "--dry-run")
