"""Models and datasets: learning curves, accuracy by layer, first filters, thumbnails."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ssltransfer.artifacts.index import Index
from ssltransfer.artifacts.manifest import ModelManifest
from ssltransfer.artifacts.metrics import LineFigure, Metrics
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import Snapshot
from ssltransfer.report.load_results import ArtifactRecord, Kind, Results
from ssltransfer.report.plots import Plots
from ssltransfer.report.thumbnails import filters, sample_images, strip, thumbnail_source

THUMBNAILS = 12  # of a dataset
MAX_SKIPPED = 20  # skipped files that are listed


@dataclass(frozen=True)
class LearningCurve:
    """Learning curves of one model; `summary` holds the last values and `chance_loss`."""

    record: ArtifactRecord[ModelManifest]
    plots: list[Markup]
    summary: Mapping[str, float]
    steps: int


def learning_curves(results: Results, plots: Plots) -> Iterator[LearningCurve]:
    """Every trained model."""
    for record in results.models.values():
        rows, summary = record.content.curve(), record.content.summary
        if rows and summary:
            drawn = [plot for curve in _task_curves(record, rows, summary) for plot in plots.learning(*curve)]
            yield LearningCurve(record, drawn, summary, int(rows[-1].get("step", len(rows))))


def _task_curves(
    record: ArtifactRecord[ModelManifest], rows: list[dict[str, float]], summary: Mapping[str, float]
) -> Iterator[tuple[list[dict[str, float]], float, str]]:
    """(rows, chance_loss, title) of the only task, or of each task of a multi-task training (`task.loss` in rows)."""
    chance_losses = record.content.chance_losses
    if not chance_losses:
        yield rows, summary["chance_loss"], record.name
    for task, chance_loss in chance_losses.items():
        prefix = f"{task}."
        own = [{key.removeprefix(prefix): row[key] for key in row if key.startswith(prefix)} for row in rows]
        title = f"{task} of {record.name}" if len(chance_losses) > 1 else record.name
        yield [row for row in own if "loss" in row], chance_loss, title


def snapshot_curves(results: Results, plots: Plots) -> list[Markup]:
    """Quality against training steps: one plot for each evaluation of snapshots."""
    steps = {name: _snapshot_of(name, record.content) for name, record in results.models.items()}
    trained = {source for name, (source, _) in steps.items() if source != name}
    drawn = []
    for evaluation, measured in results.evaluations.items():
        series: dict[str, list[tuple[float, float]]] = {}
        for metrics in measured:
            source, step = steps.get(metrics.model, ("", 0))
            if source in trained and step:
                series.setdefault(source, []).append((step, metrics.mean()))
        if series:
            lines = {
                model: ([x for x, _ in sorted(points)], [y for _, y in sorted(points)])
                for model, points in series.items()
            }
            axis = f"{measured[0].primary_metric}, {measured[0].unit}"
            drawn.append(plots.lines(LineFigure(title=evaluation, x="step", y=axis, series=lines), "snapshots"))
    return drawn


def _snapshot_of(name: str, model: ModelManifest) -> tuple[str, int]:
    """(trained model, step); a model that is not a snapshot is its own last step."""
    if isinstance(model.spec, Pretext) and isinstance(model.spec.task, Snapshot):
        return model.spec.task.source, model.spec.task.step
    return name, int((model.summary or {}).get("step", 0))


@dataclass(frozen=True)
class LayerTable:
    """Accuracy by layer under one evaluation; rows are (model, kind, layer -> value)."""

    evaluation: str
    metrics: Metrics
    plot: Markup
    layers: list[str]
    rows: list[tuple[str, Kind, dict[str, float]]]


def layer_tables(results: Results, plots: Plots) -> Iterator[LayerTable]:
    """Every evaluation that probes several layers."""
    for name, measured in results.evaluations.items():
        rows = [
            (one.model, results.kind(one.model), {layer: one.mean(layer) for layer in results.ordered_layers(one)})
            for one in measured
        ]
        rows = [row for row in rows if len(row[2]) > 1]
        if rows:
            layers = max((list(values) for _, _, values in rows), key=len)
            plot = plots.layers(rows, layers, measured[0].unit, f"Accuracy by layer under {name}")
            yield LayerTable(name, measured[0], plot, layers, rows)


def layer_mixes(results: Results, plots: Plots) -> list[tuple[str, Markup]]:
    """|alpha| of the units that tasks and evaluations of a model read, for each model with such mixes."""
    drawn = []
    for name, record in results.models.items():
        rows = list(record.content.mixes.items())
        for evaluation, measured in results.evaluations.items():
            rows += [(evaluation, one.known_details.mix) for one in measured if one.model == name]
        rows = [(row, mix) for row, mix in rows if mix]
        if rows:
            drawn.append((name, plots.layer_mix(rows, f"Layer mixes of {name}")))
    return drawn


def first_filters(results: Results) -> list[tuple[ArtifactRecord[ModelManifest], str]]:
    """Models with a convolution as the first layer, and a data URI of its kernels."""
    grids = [
        (record, filters(record.content.path.parent / "backbone.safetensors")) for record in results.models.values()
    ]
    return [(record, grid) for record, grid in grids if grid]


@dataclass(frozen=True)
class DatasetView:
    """One dataset.

    Attributes:
        duplicates: number of images whose content occurs earlier in the dataset.
        reasons: reasons for skipping files, most frequent first; `skipped` lists some files.
        class_counts: images of the smallest and the largest class.
        uri: a strip of thumbnails.
    """

    record: ArtifactRecord[Index]
    duplicates: int
    reasons: list[tuple[str, int]]
    skipped: list[tuple[str, str]]
    smallest: list[int] | None
    largest: list[int] | None
    class_counts: tuple[int, int] | None
    uri: str | None


def datasets(results: Results) -> Iterator[DatasetView]:
    """Every dataset."""
    for record in results.datasets.values():
        index = record.content
        counts = np.bincount(index.labels[index.labels >= 0], minlength=len(index.classes))
        if index.multi_label is not None:
            counts = (index.multi_label == 1).sum(0)
        sample = sample_images(index, THUMBNAILS)
        yield DatasetView(
            record,
            len(index) - len(set(index.digests)),
            Counter(_reason(text) for text in index.skipped.values()).most_common(),
            sorted(index.skipped.items())[:MAX_SKIPPED],
            index.sizes.min(0).tolist() if len(index) else None,
            index.sizes.max(0).tolist() if len(index) else None,
            (int(counts.min()), int(counts.max())) if index.classes else None,
            strip([thumbnail_source(index, i) for i in sample]) if sample else None,
        )


def _reason(text: str) -> str:
    """A reason without its file-specific part."""
    return text.partition(":")[0].partition(" (")[0]
