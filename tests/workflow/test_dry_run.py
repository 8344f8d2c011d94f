"""What Snakemake says before any job runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from chain import ROOT, planned, snakemake, tiny, write_config

WHOLE_CHAIN = {
    "index/objects-train",
    "index/objects-val",
    "index/scenes-train",
    "pretext/puzzle",
    "features/puzzle-conv4/objects-train",
    "features/puzzle-conv4/objects-val",
    "features/puzzle-conv4/scenes-train",
    "features/pupil.conv4-max2/objects-train",
    "features/pupil.conv4-max2/objects-val",
    "cluster/puzzle-k4",
    "label/puzzle-k4/objects-train",
    "label/puzzle-k4/scenes-train",
    "student/pupil",
    "evaluate/nearest/puzzle",
    "evaluate/nearest/pupil",
    "report/index",
}


def test_a_bare_call_at_the_root_lists_the_demo():
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--nocolor"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
    )
    assert run.returncode == 0, run.stdout
    assert "profiles/default" in run.stdout
    # Where the demo was made already there is nothing to list but `all`'s own answer.
    assert "report/index.html" in run.stdout or "Nothing to be done" in run.stdout
    assert "MissingInput" not in run.stdout


def test_ones_own_configuration_is_the_whole_of_it(tmp_path: Path):
    """Neither the demo's datasets nor its models are mixed in."""
    write_config(tmp_path, tiny())
    assert planned(tmp_path) == WHOLE_CHAIN


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"clusters.puzzle-k4.itertions": 5},
            "clusters.puzzle-k4.itertions: unknown key 'itertions'; did you mean 'iterations'?",
        ),
        ({"results": "a{b}c"}, "results: it holds a brace, which Snakemake reads as a wildcard; rename it"),
    ],
)
def test_a_fault_is_one_line_and_no_job_starts(tmp_path: Path, changes: dict[str, object], sentence: str):
    write_config(tmp_path, tiny(**changes))
    run = snakemake(tmp_path, "--cores", "2")
    assert run.returncode == 1
    said = [line for line in run.stdout.splitlines() if line and "profile" not in line]
    assert len(said) == 1
    assert sentence in said[0]
    assert not (tmp_path / "results").exists()


def test_the_slurm_profile_speaks_of_every_stage():
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    rules = {file.stem for file in (ROOT / "workflow/rules").glob("*.smk")} - {"common", "report"}
    assert set(profile["set-resources"]) == rules
    assert set(profile["set-threads"]) == rules
    assert {name for name, given in profile["set-resources"].items() if given.get("gpu")} == {
        file.stem
        for file in (ROOT / "workflow/rules").glob("*.smk")
        if re.search(r"^\s+gpu=1,$", file.read_text(), re.M)
    }
