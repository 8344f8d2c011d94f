"""Metrics: one JSON form for all protocols."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssltransfer.artifacts.files import ArtifactError, read_json, write_json


@dataclass(frozen=True)
class Metrics:
    """Numbers of one model under one protocol.

    Attributes:
        protocol: name and options, with the protocol's version where it was raised.
        model: name of the model; `evaluation`: name of the evaluation.
        primary_metric: key of `values` that a table shows.
        values: value name -> one number for each seed, in `unit`.
        chance: what chance reaches for the primary metric, in `unit`.
        datasets: role -> name, number of samples, fingerprint.
        train_test_overlap: number of test images that also occur in the training set (same content).
        details: curves, per-class values, matrices: what the report draws.
        inputs: role -> digests of what it was made from.
    """

    protocol: dict[str, Any]
    model: str
    evaluation: str
    primary_metric: str
    unit: str
    values: dict[str, list[float]]
    seeds: list[int]
    datasets: dict[str, dict[str, Any]]
    chance: float | None = None
    train_test_overlap: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, list[str]] = field(default_factory=dict)

    def mean(self, value: str | None = None) -> float:
        """Mean over seeds."""
        numbers = self.values[value or self.primary_metric]
        return sum(numbers) / len(numbers)

    def std(self, value: str | None = None) -> float | None:
        """Standard deviation over seeds (n - 1), or None for one seed."""
        numbers = self.values[value or self.primary_metric]
        if len(numbers) < 2:
            return None
        mean = sum(numbers) / len(numbers)
        return math.sqrt(sum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1))


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write metrics, all or nothing.

    Raises:
        ArtifactError: a number is not finite.
    """
    content = asdict(metrics)
    wrong = next(_not_finite(content, ""), None)
    if wrong:
        raise ArtifactError(f"{path}: {wrong} is not finite; the evaluation of {metrics.model} went wrong.")
    write_json(path, {"stage": "evaluate", **content})


def _not_finite(content: Any, name: str) -> Iterator[str]:
    """Names of the numbers in nested content that JSON cannot hold."""
    if isinstance(content, float) and not math.isfinite(content):
        yield name
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _not_finite(value, f"{name}.{key}".lstrip("."))
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _not_finite(value, name)


def read_metrics(path: Path) -> Metrics:
    """Read metrics.

    Raises:
        ArtifactError: missing, or not a file of metrics.
    """
    content = read_json(path)
    try:
        if content.pop("stage", None) == "evaluate":
            return Metrics(**content)
    except (TypeError, AttributeError):
        pass
    raise ArtifactError(f"{path}: not a file of metrics; remove it and run the evaluate stage again.")
