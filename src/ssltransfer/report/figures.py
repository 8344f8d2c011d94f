"""Figures that a configuration asks for: means of models, with their spread, over numbers or over layers."""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import chain, count
from statistics import fmean, stdev

from ssltransfer.artifacts.metrics import Metrics
from ssltransfer.config import ConfigError
from ssltransfer.config.base import suggest
from ssltransfer.config.entities import Figure, Report
from ssltransfer.report.load_results import Results


@dataclass(frozen=True)
class Point:
    """Mean and sample standard deviation (0 for one model) of the models at `x`, in the unit of the panel.

    In a scatter plot `x` is a mean too, with its own deviation, and the point has a label.
    """

    x: float
    mean: float
    std: float
    x_std: float = 0.0
    label: str = ""


@dataclass(frozen=True)
class Panel:
    """One evaluation.

    Attributes:
        title: as the configuration writes the column.
        lines: name -> points.
        levels: name -> height of a horizontal line.
        layers: names of the layers at x = 0, 1, ...; empty if x is a number.
        x: label of the x axis.
    """

    title: str
    unit: str
    lines: Mapping[str, Sequence[Point]]
    levels: Mapping[str, float]
    layers: Sequence[str]
    x: str = ""


@dataclass(frozen=True)
class FigureData:
    """A figure ready to be drawn; `file` is its name without a suffix."""

    spec: Figure
    file: str
    panels: Sequence[Panel]


def build_figures(report: Report, results: Results) -> list[FigureData]:
    """The configured figures; of partial results, the panels whose models are all measured.

    Raises:
        ConfigError: an evaluation, a metric or a model has no results.
    """
    figures = []
    for spec, file in zip(report.figures, _files(report), strict=True):
        panels = []
        for key in spec.columns:
            with suppress(ConfigError) if results.partial else nullcontext():
                panels.append(_panel(spec, key, results))
        if panels:
            figures.append(FigureData(spec, file, panels))
    return figures


def _files(report: Report) -> list[str]:
    """Titles as file names, with a number where another title gives the same name."""
    names: list[str] = []
    for figure in report.figures:
        name = re.sub(r"[^a-z0-9]+", "-", figure.title.lower()).strip("-") or "figure"
        names.append(next(one for one in chain([name], (f"{name}-{i}" for i in count(2))) if one not in names))
    return names


def _panel(spec: Figure, column: str, results: Results) -> Panel:
    where = f"report.figures: {spec.title!r}"
    evaluation, _, value = column.partition(":")
    measured = results.evaluations.get(evaluation)
    if not measured:
        raise ConfigError(f"{where}: no evaluation named {evaluation!r} has results")
    value = value or measured[0].primary_metric
    x_axis, x_of = _x_values(spec.against, results, where) if spec.against else (spec.x, None)

    def chosen(pattern: str) -> list[Metrics]:
        found = [metrics for metrics in measured if fnmatch.fnmatchcase(metrics.model, pattern)]
        if not found:
            names = [metrics.model for metrics in measured]
            raise ConfigError(f"{where}: no result of {evaluation} matches {pattern!r}{suggest(pattern, names)}")
        return found

    def point(x: float, models: Sequence[Metrics], value: str) -> Point:
        y = _mean_and_std([metrics.mean(value) for metrics in models])
        if x_of is None:
            return Point(x, *y)
        x_mean, x_std = _mean_and_std([x_of(metrics.model) for metrics in models])
        return Point(x_mean, *y, x_std, f"{x:g}")

    layers: list[str] = []
    if spec.layers:
        models = {name: chosen(spec.layers[name]) for name in sorted(spec.layers, key=_natural_order)}
        layers = max((results.ordered_layers(metrics) for found in models.values() for metrics in found), key=len)
        lines = {
            name: [point(i, found, layer) for i, layer in enumerate(layers) if all(layer in m.values for m in found)]
            for name, found in models.items()
        }
    else:
        lines = {
            name: [point(x, chosen(pattern), value) for x, pattern in sorted(spec.lines[name].items())]
            for name in sorted(spec.lines, key=_natural_order)
        }
    levels = {name: fmean(m.mean(value) for m in chosen(pattern)) for name, pattern in spec.levels.items()}
    return Panel(column, measured[0].unit, lines, levels, layers, spec.x or x_axis)


def _natural_order(name: str) -> list[tuple[int, str]]:
    """Key that sorts names by the numbers in them, because the order of the configuration is not kept."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def _x_values(against: str, results: Results, where: str) -> tuple[str, Callable[[str], float]]:
    """Name of the x axis, and model -> x, for an evaluation[:metric] or training:metric."""
    source, _, value = against.partition(":")
    measured = {metrics.model: metrics for metrics in results.evaluations.get(source, [])}
    is_percent = "accuracy" in value  # learning curves hold fractions

    def of_training(model: str) -> float:
        summary = (results.models[model].content.summary if model in results.models else None) or {}
        if value not in summary:
            raise ConfigError(f"{where}: the training of {model} has no {value!r}{suggest(value, summary)}")
        return summary[value] * (100 if is_percent else 1)

    def of_evaluation(model: str) -> float:
        if model not in measured:
            raise ConfigError(f"{where}: no result of {source} for {model!r}{suggest(model, measured)}")
        metrics = measured[model]
        if value and value not in metrics.values:
            raise ConfigError(f"{where}: {source} has no value {value!r}{suggest(value, metrics.values)}")
        return metrics.mean(value or None)

    if source == "training":
        return f"{value.replace('_', ' ')} of the training{', %' if is_percent else ''}", of_training
    unit = next((f", {metrics.unit}" for metrics in measured.values()), "")
    return f"{against}{unit}", of_evaluation
