"""What Snakemake takes when nothing is to be done, and to list the jobs of a paper's setting."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from benchmarks.harness.measure import OURS, Figure, Setting, interleave

ROOT = Path(__file__).parents[1]
GOAL = 5.0
START = "snakemake --version"


def run(setting: Setting) -> Iterator[Figure]:
    """Seconds, the start of Python and Snakemake included; that alone is given beside."""
    tiny = setting.folder / "tiny"
    tiny.mkdir()
    (tiny / "config.yaml").write_text(json.dumps(yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())))
    finished = [*_snakemake(tiny / "config.yaml"), "--cores", str(setting.threads)]
    _call(finished, tiny)
    yield _seconds("finished run again, nothing to do: tests/workflow/tiny.yaml", finished, tiny, setting.rounds)

    paper = setting.folder / "paper"
    runpy.run_path(str(ROOT / "tests/helpers/standins.py"))["stand_in"](paper / "data")
    dry = [*_snakemake(ROOT / "config/noroozi2018.yaml"), "--cores", "2", "--dry-run", "--quiet", "rules"]
    yield _seconds("dry run of config/noroozi2018.yaml", dry, paper, setting.rounds)


def _snakemake(config: Path) -> list[str]:
    given = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(config), "--nocolor"]
    return [sys.executable, "-m", "snakemake", *given]


def _seconds(case: str, command: list[str], folder: Path, rounds: int) -> Figure:
    start = [sys.executable, "-m", "snakemake", "--version"]
    samples = interleave({OURS: lambda: _call(command, folder), START: lambda: _call(start, folder)}, rounds)
    return Figure(case, "s", samples[OURS], GOAL, {START: samples[START]})


def _call(command: list[str], folder: Path) -> None:
    run = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{run.stdout[-2000:]}")
