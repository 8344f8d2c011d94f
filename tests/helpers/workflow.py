"""Running the repository's workflow in a folder of one's own, and reading what Snakemake says."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from ssltransfer.artifacts.metrics import Metrics, read_metrics
from ssltransfer.config import read_config

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())


def tiny(**changes: Any) -> dict[str, Any]:
    """The tiny configuration, with values put in at dotted paths: tiny(**{"clusters.puzzle-k4.k": 5})."""
    config = copy.deepcopy(TINY)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = config
        for parent in parents:
            place = place[parent]
        place[last] = value
    return config


def example(number: int, **dataset: Any) -> dict[str, Any]:
    """An example of docs/clustering.md, by its number among them, with other options of its dataset."""
    text = (ROOT / "docs" / "clustering.md").read_text(encoding="utf-8")
    config: dict[str, Any] = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[number])
    config["results"] = "results"
    config["datasets"]["photos"].update(dataset)
    return config


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    """`config` as a file of `folder`, without YAML's references."""
    file = folder / "config.yaml"
    file.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    return file


def command(*arguments: str, config: str = "config.yaml") -> list[str]:
    """Snakemake on the repository's workflow."""
    given = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", config, "--nocolor"]
    return [sys.executable, "-m", "snakemake", *given, *arguments]


def snakemake(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in `folder`, whose config.yaml it reads; output and errors together."""
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def planned(folder: Path, *arguments: str) -> set[str]:
    """What a dry run would make, named by stage and name: pretext/puzzle, evaluate/nearest/pupil, ..."""
    run = snakemake(folder, "--dry-run", "--cores", "2", *arguments)
    assert run.returncode == 0, run.stdout
    firsts = re.findall(r"^    output: (.*?)(?:, .*)?$", run.stdout, flags=re.MULTILINE)
    return {re.sub(r"^.*?results/|/manifest$", "", str(Path(first).with_suffix(""))) for first in firsts}


def results(folder: Path) -> Path:
    """The folder of results of the configuration in `folder`."""
    place: str = json.loads((folder / "config.yaml").read_text())["results"]
    return folder / place


def compared(folder: Path) -> dict[str, bytes]:
    """The content of every file that Snakemake compares: manifests, indexes, labels and metrics."""
    kinds = ("*/*/manifest.json", "*/*/*/manifest.json", "index/*.parquet", "label/*/*.parquet", "evaluate/*/*.json")
    found = sorted({file for kind in kinds for file in results(folder).glob(kind) if ".run." not in file.name})
    return {str(file.relative_to(results(folder))): file.read_bytes() for file in found}


def measured(config: Path, folder: Path) -> dict[str, dict[str, Metrics]]:
    """Run a configuration in `folder`, on one core as other tests run beside it; evaluation -> model -> metrics.

    Every evaluation must be there, and every table in the report.
    """
    words = command("--cores", "1", config=str(config))
    run = subprocess.run(words, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert run.returncode == 0, run.stdout[-6000:]
    read = read_config(config)
    found: dict[str, dict[str, Metrics]] = {}
    for file in sorted((folder / read.results / "evaluate").glob("*/*.json")):
        if not file.name.endswith(".run.json"):
            found.setdefault(file.parent.name, {})[file.stem] = read_metrics(file)
    assert set(found) == set(read.evaluations)
    page = (folder / read.results / "report/index.html").read_text("utf-8")
    assert all(table.title in page for table in read.report.tables)
    return found
