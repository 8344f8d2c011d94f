"""What the sections on models, evaluations and data show, as plain values for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from markupsafe import Markup

from ssltransfer.artifacts.metrics import Metrics
from ssltransfer.report.details import drawn, extremes, neighbors, other, per_class
from ssltransfer.report.load_results import Made, Results
from ssltransfer.report.plots import Plots
from ssltransfer.report.thumbnails import filters, sample_of, shown, strip

STRIP = 12  # thumbnails of a dataset


def curves(results: Results, plots: Plots) -> Iterator[dict[str, Any]]:
    """Learning curves of every model that was trained, beside chance level."""
    for made in results.models.values():
        rows = made.curve()
        chance_loss = made.content.get("summary", {}).get("chance_loss")
        if rows and chance_loss is not None:
            yield {
                "made": made,
                "plots": [plot for of in _tasks(made, rows, chance_loss) for plot in plots.learning(*of)],
                "last": made.content["summary"],
                "steps": int(rows[-1].get("step", len(rows))),
            }


def _tasks(
    made: Made, rows: list[dict[str, float]], chance_loss: float
) -> Iterator[tuple[list[dict[str, float]], float, str]]:
    """(rows, chance_loss, name) of each of several tasks, whose values are called `task.value`; or of the only one."""
    chance_losses: dict[str, float] = made.content.get("chance_losses", {})
    if not chance_losses:
        yield rows, chance_loss, made.name
    for task, of_task in chance_losses.items():
        own = [
            {key.removeprefix(f"{task}."): value for key, value in row.items() if key.startswith(f"{task}.")}
            for row in rows
        ]
        yield (
            [row for row in own if "loss" in row],
            of_task,
            f"{task} of {made.name}" if len(chance_losses) > 1 else made.name,
        )


def snapshot_curves(results: Results, plots: Plots) -> list[Any]:
    """Quality against steps: a plot for each evaluation in which snapshots of trainings were measured."""
    drawn = []
    for name, measured in results.evaluations.items():
        series: dict[str, list[tuple[int, float]]] = {}
        models = {
            metrics.model: results.models[metrics.model] for metrics in measured if metrics.model in results.models
        }
        copied = {made.spec["task"]["source"] for made in models.values() if made.copy_of}
        for metrics in measured:
            made = models.get(metrics.model)
            step = made and (made.spec["task"]["step"] if made.copy_of else made.content.get("summary", {}).get("step"))
            if made and step and (made.copy_of or made.name in copied):
                series.setdefault(made.copy_of or made.name, []).append((int(step), metrics.mean()))
        if series:
            lines = {model: list(zip(*sorted(points), strict=True)) for model, points in series.items()}
            axis = f"{measured[0].primary_metric}, {measured[0].unit}"
            figure = {"title": name, "x": "step", "y": axis, "series": lines}
            drawn.append(plots.lines(figure, "snapshots"))
    return drawn


def layer_curves(results: Results, plots: Plots) -> Iterator[dict[str, Any]]:
    """Accuracy by layer of every evaluation that probes several layers."""
    for name, measured in results.evaluations.items():
        lines = []
        for metrics in measured:
            layers = results.ordered_layers(metrics)
            if len(layers) > 1:
                means = [metrics.mean(layer) for layer in layers]
                lines.append((metrics.model, results.kind(metrics.model), layers, means))
        if lines:
            longest = max((line[2] for line in lines), key=len)
            rows = [(model, kind, dict(zip(layers, values, strict=True))) for model, kind, layers, values in lines]
            yield {
                "evaluation": name,
                "metrics": measured[0],
                "plot": plots.layers(lines, measured[0].unit, f"Accuracy by layer under {name}"),
                "layers": longest,
                "rows": rows,
            }


def first_filters(results: Results) -> list[tuple[Made, str]]:
    """Every model that has a first convolution, with its grid of kernels."""
    grids = ((made, filters(made.path.parent / "backbone.safetensors")) for made in results.models.values())
    return [(made, grid) for made, grid in grids if grid]


def evaluation_details(results: Results, plots: Plots) -> Iterator[dict[str, Any]]:
    """What each protocol left in `details`: values of classes, matrices, neighbors, and whatever else is short."""
    for name, measured in results.evaluations.items():
        yield {
            "name": name,
            "first": measured[0],
            "measured": measured,
            "classes": per_class(measured),
            "models": [_details(results, metrics, plots) for metrics in measured],
        }


def _details(results: Results, metrics: Metrics, plots: Plots) -> dict[str, Any]:
    matrix = metrics.details.get("confusion")
    confusion: Markup | None = None
    if isinstance(matrix, list) and matrix and isinstance(matrix[0], list):
        confusion = plots.matrix(
            np.asarray(matrix, float), metrics.details.get("classes", ()), f"Confusion matrix of {metrics.model}"
        )
    return {
        "metrics": metrics,
        "kind": results.kind(metrics.model),
        "matrix": confusion,
        "lines": [plots.lines(figure, metrics.model) for figure in metrics.details.get("lines", [])],
        "drawn": drawn(metrics),
        "extremes": extremes(metrics),
        "neighbors": neighbors(results, metrics),
        "other": other(metrics),
    }


def datasets(results: Results) -> Iterator[dict[str, Any]]:
    """Counts, reasons for leaving images out, and a strip of thumbnails of every dataset."""
    for entry in results.datasets.values():
        index = entry.index
        sample = sample_of(index, STRIP)
        per_class_counts = np.bincount(index.labels[index.labels >= 0], minlength=len(index.classes))
        if index.multi_label is not None:
            per_class_counts = (index.multi_label == 1).sum(0)
        yield {
            "entry": entry,
            "n": len(index),
            "doubled": len(index) - len(set(index.digests)),
            "reasons": Counter(_reason(text) for text in index.skipped.values()).most_common(),
            "skipped": sorted(index.skipped.items())[:20],
            "smallest": index.sizes.min(0).tolist() if len(index) else None,
            "largest": index.sizes.max(0).tolist() if len(index) else None,
            "class_counts": (int(per_class_counts.min()), int(per_class_counts.max())) if index.classes else None,
            "uri": strip([shown(index, i) for i in sample]) if sample else None,
            "shown": len(sample),
        }


def _reason(text: str) -> str:
    """A reason without the particulars that differ from file to file."""
    return text.partition(":")[0].partition(" (")[0]
