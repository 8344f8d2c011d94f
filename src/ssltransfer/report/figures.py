"""Figures that a configuration asks for: means of models, with their spread, over numbers or over layers."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
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
    """Mean and sample standard deviation (0 for one model) of the models at `x`, in the unit of the panel."""

    x: float
    mean: float
    std: float


@dataclass(frozen=True)
class Panel:
    """One evaluation.

    Attributes:
        title: as the configuration writes the column.
        lines: name -> points.
        levels: name -> height of a horizontal line.
        layers: names of the layers at x = 0, 1, ...; empty if x is a number.
    """

    title: str
    unit: str
    lines: Mapping[str, Sequence[Point]]
    levels: Mapping[str, float]
    layers: Sequence[str]


@dataclass(frozen=True)
class FigureData:
    """A figure ready to be drawn; `file` is its name without a suffix."""

    spec: Figure
    file: str
    panels: Sequence[Panel]


def build_figures(report: Report, results: Results) -> list[FigureData]:
    """The configured figures.

    Raises:
        ConfigError: an evaluation, a metric or a model has no results.
    """
    return [
        FigureData(spec, file, [_panel(spec, key, results) for key in spec.columns])
        for spec, file in zip(report.figures, _files(report), strict=True)
    ]


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

    def chosen(pattern: str) -> list[Metrics]:
        found = [metrics for metrics in measured if fnmatch.fnmatchcase(metrics.model, pattern)]
        if not found:
            names = [metrics.model for metrics in measured]
            raise ConfigError(f"{where}: no result of {evaluation} matches {pattern!r}{suggest(pattern, names)}")
        return found

    def point(x: float, models: Sequence[Metrics], value: str) -> Point:
        means = [metrics.mean(value) for metrics in models]
        return Point(x, fmean(means), stdev(means) if len(means) > 1 else 0.0)

    layers: list[str] = []
    if spec.layers:
        models = {name: chosen(pattern) for name, pattern in spec.layers.items()}
        layers = max((results.ordered_layers(metrics) for found in models.values() for metrics in found), key=len)
        lines = {
            name: [point(i, found, layer) for i, layer in enumerate(layers) if all(layer in m.values for m in found)]
            for name, found in models.items()
        }
    else:
        lines = {
            name: [point(x, chosen(pattern), value) for x, pattern in sorted(points.items())]
            for name, points in spec.lines.items()
        }
    levels = {name: point(0, chosen(pattern), value).mean for name, pattern in spec.levels.items()}
    return Panel(column, measured[0].unit, lines, levels, layers)
