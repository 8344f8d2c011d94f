"""Evaluations: values per class, confusion matrices, nearest neighbors, and other details of a protocol."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from torch import Tensor

from ssltransfer.artifacts.archives import Member
from ssltransfer.artifacts.index import Index
from ssltransfer.artifacts.metrics import AlignedCluster, DrawnImage, Metrics, NeighborExample
from ssltransfer.report.load_results import Results
from ssltransfer.report.plots import Plots
from ssltransfer.report.thumbnails import source_of, strip, thumbnail_source

MAX_EXAMPLES = 4  # test images with their neighbors, per model
MAX_CLASSES = 30  # with more classes, only the best and worst are shown
EXTREMES = 5  # best and worst classes
THUMBNAIL = 48  # pixels


@dataclass(frozen=True)
class Neighbors:
    """A test image with its nearest neighbors, as one strip."""

    uri: str
    example: NeighborExample


@dataclass(frozen=True)
class ClusterImages:
    """Random test images of an aligned cluster, as one strip."""

    uri: str
    cluster: AlignedCluster


@dataclass(frozen=True)
class ModelDetails:
    """Details of one model.

    Attributes:
        figures: confusion matrix and curves, each with a caption.
        extremes: title -> best or worst classes.
        other: (key, value) of all other short details.
    """

    metrics: Metrics
    figures: list[tuple[Markup, str]]
    drawn: list[DrawnImage]
    extremes: dict[str, list[tuple[str, float]]]
    neighbors: list[Neighbors]
    clusters: list[ClusterImages]
    other: list[tuple[str, str]]


@dataclass(frozen=True)
class EvaluationDetails:
    """One evaluation; `per_class` holds (class, value of each model)."""

    name: str
    metrics: list[Metrics]
    per_class: list[tuple[str, list[float | None]]]
    models: list[ModelDetails]


def evaluation_details(results: Results, plots: Plots) -> Iterator[EvaluationDetails]:
    """Details of every evaluation."""
    for name, metrics in results.evaluations.items():
        models = [_model_details(results, one, plots) for one in metrics]
        yield EvaluationDetails(name, metrics, _per_class(metrics), models)


def _model_details(results: Results, metrics: Metrics, plots: Plots) -> ModelDetails:
    details = metrics.known_details
    figures = [(plots.lines(figure, metrics.model), "") for figure in details.lines]
    if details.confusion:
        title = f"Confusion matrix of {metrics.model}"
        matrix = plots.matrix(np.asarray(details.confusion), details.classes, title)
        figures.insert(0, (matrix, "Confusion matrix: each row shows how images of one true class were classified."))
    return ModelDetails(
        metrics,
        figures,
        details.drawn,
        _extremes(metrics),
        _neighbors(results, metrics),
        _clusters(results, metrics),
        _other(metrics),
    )


def _per_class(metrics: Sequence[Metrics]) -> list[tuple[str, list[float | None]]]:
    tables = [one.known_details.per_class for one in metrics]
    names = list(dict.fromkeys(name for table in tables for name in table))
    return [(name, [table.get(name) for table in tables]) for name in names] if len(names) <= MAX_CLASSES else []


def _extremes(metrics: Metrics) -> dict[str, list[tuple[str, float]]]:
    """The best and worst classes, where there are too many for a table."""
    values = {name: value for name, value in metrics.known_details.per_class.items() if value is not None}
    if len(values) <= MAX_CLASSES:
        return {}
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    return {"Best classes": ordered[:EXTREMES], "Worst classes": ordered[::-1][:EXTREMES]}


def _neighbors(results: Results, metrics: Metrics) -> list[Neighbors]:
    test, train = (_index(results, metrics, role) for role in ("test", "train"))
    train = train or test
    examples = metrics.known_details.examples
    if test is None or train is None:
        return []
    shown = examples[:: max(1, len(examples) // MAX_EXAMPLES)][:MAX_EXAMPLES]
    return [
        Neighbors(
            strip(
                [source_of(test, one.path), *(source_of(train, near.path) for near in one.neighbors)],
                THUMBNAIL,
                lead=6,
            ),
            one,
        )
        for one in shown
    ]


def _clusters(results: Results, metrics: Metrics) -> list[ClusterImages]:
    """Clusters with images, ordered by class."""
    test = _index(results, metrics, "test")
    shown = sorted((one for one in metrics.known_details.clusters if one.test), key=lambda one: one.label)
    if test is None or not shown:
        return []
    samples = {path: sample for sample, path in enumerate(test.paths)}

    def source(path: str) -> Path | Member | Tensor:
        return thumbnail_source(test, samples[path]) if path in samples else test.root / path

    return [ClusterImages(strip(list(map(source, one.test)), THUMBNAIL), one) for one in shown]


def _index(results: Results, metrics: Metrics, role: str) -> Index | None:
    dataset = metrics.datasets.get(role)
    return results.datasets[dataset.name].content if dataset and dataset.name in results.datasets else None


def _other(metrics: Metrics) -> list[tuple[str, str]]:
    extra = sorted((metrics.known_details.model_extra or {}).items())
    return [
        (key.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
        for key, value in extra
        if isinstance(value, str | int | float)
    ]
