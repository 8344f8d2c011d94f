"""What a run has finished, and what it does now, by the files of its results."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ssltransfer.errors import UserError

# Running jobs write a line at least every 30 seconds.
SILENT = 90
FINISHED = {
    "index": "*.parquet",
    "cache": "*.parquet",
    "motion": "*.parquet",
    "curate": "*.parquet",
    "pretext": "*/manifest.json",
    "features": "*/*/manifest.json",
    "cluster": "*/manifest.json",
    "label": "*/*.parquet",
    "student": "*/manifest.json",
    "evaluate": "*/*.json",
    "report": "index.html",
    "export": "*.md",
}


@dataclass(frozen=True)
class Running:
    """A job that has written to its log lately.

    Attributes:
        job: stage and name.
        seconds: since its last line.
        line: the last line.
    """

    job: str
    seconds: float
    line: str


def finished(results: Path) -> dict[str, int]:
    """Stage -> number of results, for stages that have any.

    Raises:
        UserError: no such folder.
    """
    if not results.is_dir():
        raise UserError(f"{results}: no such directory.")
    counts = {
        stage: sum(not file.name.endswith(".run.json") for file in (results / stage).glob(pattern))
        for stage, pattern in FINISHED.items()
    }
    return {stage: count for stage, count in counts.items() if count}


def running(results: Path, now: float | None = None) -> list[Running]:
    """The running jobs, the most recent line first."""
    now, found = now or time.time(), []
    for log in (results / "logs").glob("**/*.log"):
        seconds = now - log.stat().st_mtime
        if seconds < SILENT and (lines := _end_of(log)):
            found.append(Running(log.relative_to(results / "logs").with_suffix("").as_posix(), seconds, lines[-1]))
    return sorted(found, key=lambda job: job.seconds)


def _end_of(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        return [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
