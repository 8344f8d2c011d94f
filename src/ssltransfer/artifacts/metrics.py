"""Metrics of all protocols, in one JSON schema."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssltransfer.artifacts.files import ArtifactError, read_json, write_json


@dataclass(frozen=True)
class DatasetRef:
    """A dataset of an evaluation."""

    name: str
    samples: int
    fingerprint: str


class Neighbor(BaseModel):
    """A gallery image near a test image; `path` is relative to its dataset, `similarity` is the cosine."""

    path: str
    label: str = Field(alias="class")
    similarity: float


class NeighborExample(BaseModel):
    """A test image and its nearest neighbors."""

    path: str
    label: str = Field(alias="class")
    neighbors: list[Neighbor]


class AlignedCluster(BaseModel):
    """A cluster and the class that it is aligned to; `purity` is the fraction of the class, `test` are paths."""

    cluster: int
    label: str = Field(alias="class")
    purity: float
    test: list[str] = []


class DrawnImage(BaseModel):
    """An image drawn by a protocol, as a data URI."""

    title: str
    uri: str = Field(pattern="^data:image/")


class LineFigure(BaseModel):
    """Curves to plot: axis labels, and name -> (x values, y values)."""

    title: str
    x: str
    y: str
    series: dict[str, tuple[list[float], list[float]]]


class Details(BaseModel):
    """`Metrics.details` with the keys that the report draws; all others are in `model_extra`.

    Attributes:
        classes: class names, in the order of `confusion`.
        per_class: class -> value; None where the test set lacks the class.
        confusion: counts, true classes in rows, predicted ones in columns.
        layers: probed layers in the network's order.
        mix: alpha of each unit, for evaluations with `l1_layer_mix`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    classes: list[str] = []
    per_class: dict[str, float | None] = {}
    confusion: list[list[float]] = []
    examples: list[NeighborExample] = []
    clusters: list[AlignedCluster] = []
    drawn: list[DrawnImage] = []
    lines: list[LineFigure] = []
    layers: list[str] = []
    mix: list[float] = []


@dataclass(frozen=True)
class Metrics:
    """Metrics of one model under one protocol.

    Attributes:
        protocol: name and options, with the protocol's version if it was raised.
        model: name of the model; `evaluation`: name of the evaluation.
        primary_metric: key of `values` that tables show.
        values: metric -> one number per seed, in `unit`.
        chance: chance level of the primary metric, in `unit`.
        datasets: role ("train", "test") -> dataset.
        train_test_overlap: number of test images that also occur in the training set (same content).
        details: curves, per-class values, matrices; `known_details` has those that the report draws.
        inputs: role -> digests of the input files.
    """

    protocol: dict[str, Any]
    model: str
    evaluation: str
    primary_metric: str
    unit: str
    values: dict[str, list[float]]
    seeds: list[int]
    datasets: dict[str, DatasetRef]
    chance: float | None = None
    train_test_overlap: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, list[str]] = field(default_factory=dict)

    @property
    def protocol_name(self) -> str:
        """Name of the protocol."""
        return str(self.protocol["name"])

    def dataset_name(self, role: str) -> str:
        """Name of the dataset in a role, or ""."""
        return self.datasets[role].name if role in self.datasets else ""

    @cached_property
    def known_details(self) -> Details:
        """Parse the details.

        Raises:
            ArtifactError: a known key is invalid.
        """
        try:
            return Details.model_validate(self.details)
        except ValidationError as error:
            raise ArtifactError(
                f"metrics of {self.model} under {self.evaluation}: invalid details ({error})."
            ) from None

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
        raise ArtifactError(f"{path}: {wrong} is not finite; the evaluation of {metrics.model} failed.")
    write_json(path, {"stage": "evaluate", **content})


def _not_finite(content: Any, name: str) -> Iterator[str]:
    """Paths of the non-finite numbers in nested content, which JSON cannot represent."""
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
            datasets = {role: DatasetRef(**ref) for role, ref in content.pop("datasets").items()}
            return Metrics(**content, datasets=datasets)
    except (TypeError, AttributeError, KeyError):
        pass
    raise ArtifactError(f"{path}: not a file of metrics; remove it and run the evaluate stage again.")
