"""Plots as inline SVG with the colors and fonts of the page: one plot serves light mode, dark mode and print."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssltransfer.artifacts.metrics import LineFigure
from ssltransfer.report.figures import FigureData, Panel
from ssltransfer.report.load_results import Kind
from ssltransfer.report.text import wrap

INK, RULE, FAINT = "#010203", "#020304", "#030405"  # placeholders for the page's colors
_PAGE = {INK: "currentColor", RULE: "var(--rule)", FAINT: "var(--faint)"}
_FILE = {INK: "#1a1a1a", RULE: "#e4e4e4", FAINT: "#767676"}  # on white, for files outside the page
MAX_NAMES = 21  # class names beside a confusion matrix
MAX_NUMBERS = 8  # columns of a heat map with numbers in its cells
CHARACTERS = 24  # of a line of a name
SMALL = (2.75, 2.05)  # inches
FAR = 2.5  # a chance level of so many times the highest value is not drawn, because it would flatten the curve
# Okabe & Ito 2008: distinguishable for color-blind readers.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vP"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ssltransfer",
    "text.parse_math": False,
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,  # an offset would be drawn over the title
}


class Plots:
    """Draws figures with unique ids, so that one page can hold many of them."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def learning(self, rows: Sequence[Mapping[str, float]], chance_loss: float, model: str) -> list[Markup]:
        """Loss, and accuracy if recorded, over epochs; chance level (ln K, and 1/K) dashed."""
        drawn = []
        with matplotlib.rc_context(_STYLE):
            for name, title, scale, level in (
                ("loss", "loss", 1.0, chance_loss),
                ("accuracy", "accuracy, %", 100.0, 100 * math.exp(-chance_loss)),
            ):
                if not any(name in row for row in rows):
                    continue
                figure = Figure(figsize=SMALL, layout="constrained")
                axes = figure.subplots()
                _curves(axes, rows, name, scale)
                dashed: dict[str, Any] = {"color": INK, "linestyle": "--", "linewidth": 0.9}
                highest = max(scale * row[name] for row in rows if name in row)
                if is_far := level > FAR * highest:
                    axes.plot([], [], label=f"chance level {level:.3g} (above)", **dashed)
                else:
                    axes.axhline(level, label="chance level", **dashed)
                axes.set_title(title)
                axes.set_xlabel("epoch")
                if name == "loss":
                    _cut_peak(axes, [row[name] for row in rows if name in row], highest if is_far else chance_loss)
                else:
                    axes.set_ylim(bottom=0)
                if name == "accuracy" or not any("accuracy" in row for row in rows):
                    axes.legend(loc="best")
                drawn.append(self._svg(figure, f"{title} of {model} over epochs; chance level {level:.3g}"))
        return drawn

    def layers(
        self, rows: Sequence[tuple[str, Kind, Mapping[str, float]]], layers: Sequence[str], unit: str, title: str
    ) -> Markup:
        """Accuracy by layer of (model, kind, layer -> value); baselines dashed without markers."""
        with matplotlib.rc_context(_STYLE):
            names = [_lines(name, 2 * CHARACTERS) for name, _, _ in rows]
            figure = Figure(
                figsize=(4.4, 2.3 + _legend_height(names, 1) + _tilted_height(layers, 50)), layout="constrained"
            )
            axes = figure.subplots()
            learned = 0
            for (_, kind, values), label in zip(rows, names, strict=True):
                style: dict[str, Any]
                if kind in ("learned", "unranked"):
                    style = {"color": COLORS[learned % 6], "marker": MARKERS[learned % 6], "markersize": 4}
                    learned += 1
                else:
                    style = {"color": INK if kind == "supervised" else FAINT, "linestyle": "--"}
                shown = [layer for layer in layers if layer in values]
                axes.plot(
                    [layers.index(layer) for layer in shown],
                    [values[layer] for layer in shown],
                    label=label,
                    **style,
                )
            axes.set_xticks(range(len(layers)), map(_lines, layers), rotation=60 if _tilted_height(layers, 50) else 0)
            axes.set_ylabel(f"accuracy, {unit}")
            axes.set_ylim(bottom=0)
            figure.legend(loc="outside lower left")
            return self._svg(figure, title)

    def clustering(
        self, rows: Sequence[Mapping[str, float]], sizes: np.ndarray, points: int, cluster: str
    ) -> list[Markup]:
        """k-means objective and reassigned points by iteration, and a histogram of cluster sizes."""
        drawn = []
        with matplotlib.rc_context(_STYLE):
            for name, title, scale in (
                ("objective", "mean squared distance", 1 / points),
                ("moved", "points reassigned, %", 100 / points),
            ):
                figure = Figure(figsize=SMALL, layout="constrained")
                axes = figure.subplots()
                axes.plot([row["iteration"] for row in rows], [scale * row[name] for row in rows], color=COLORS[0])
                axes.set_title(title)
                axes.set_xlabel("iteration")
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
                if name == "moved":
                    axes.set_ylim(bottom=0)
                drawn.append(self._svg(figure, f"k-means of {cluster}: {title} by iteration"))
            figure = Figure(figsize=SMALL, layout="constrained")
            axes = figure.subplots()
            low, high = int(sizes.min()), int(sizes.max())
            step = max(1, -(-(high - low + 1) // 24))
            axes.hist(sizes, bins=(np.arange(low, high + step + 1, step) - 0.5).tolist(), color=COLORS[0])
            axes.set_title("clusters by size")
            axes.set_xlabel("images per cluster")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(integer=True, nbins=5))
            drawn.append(self._svg(figure, f"Histogram of the cluster sizes of {cluster}: {low} to {high}"))
        return drawn

    def matrix(self, values: np.ndarray, classes: Sequence[str], title: str) -> Markup:
        """A confusion matrix: true classes in rows, predicted ones in columns, as fractions of the true class."""
        with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
            fractions = values / np.maximum(values.sum(1, keepdims=True), 1)
            named = len(classes) == len(values) <= MAX_NAMES
            labels = [_lines(name) for name in classes] if named else []
            rows = len(labels) * max((label.count("\n") + 1 for label in labels), default=0)
            side = max(2.9, 0.13 * rows + 0.6)  # inches, so that the names do not overlap
            figure = Figure(figsize=(side + 1, side), layout="constrained")
            axes = figure.subplots()
            image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xlabel("predicted class")
            axes.set_ylabel("true class")
            if named:
                axes.set_yticks(range(len(labels)), labels)
            else:
                axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            figure.colorbar(image, ax=axes, shrink=0.8)
            return self._svg(figure, title)

    def lines(self, figure: LineFigure, model: str) -> Markup:
        """The curves of a protocol."""
        with matplotlib.rc_context(_STYLE):
            drawn = Figure(figsize=SMALL, layout="constrained")
            axes = drawn.subplots()
            # Training comes first, in the color that it has in the learning curves.
            for i, name in enumerate(sorted(figure.series, key=lambda name: name != "training")):
                xs, ys = figure.series[name]
                axes.plot(xs, ys, color=COLORS[i % len(COLORS)], label=_lines(name))
            axes.set_title(_lines(figure.title, 36))
            axes.set_xlabel(_lines(figure.x, 36))
            axes.set_ylabel(_lines(figure.y, 28))
            if len(figure.series) > 1:
                axes.legend(loc="best")
            return self._svg(drawn, f"{figure.title} of {model}")

    def panels(self, figure: FigureData) -> Markup:
        """Lines of means with error bars, one panel per evaluation; levels dashed."""
        with matplotlib.rc_context(_STYLE):
            return self._svg(_panels(figure), figure.spec.title)

    def layer_mix(self, rows: Sequence[tuple[str, Sequence[float]]], title: str) -> Markup:
        """|alpha| of (name, alpha of each unit) as a heat map (Doersch & Zisserman 2017, figure 5)."""
        with matplotlib.rc_context(_STYLE):
            names = [_lines(name) for name, _ in rows]
            height = 0.9 + 0.18 * len(names) * max(name.count("\n") + 1 for name in names)
            figure = Figure(figsize=(5.6, height), layout="constrained")
            axes = figure.subplots()
            units = max(len(alpha) for _, alpha in rows)
            values = np.full((len(rows), units), np.nan)
            for row, (_, alpha) in zip(values, rows, strict=True):
                row[: len(alpha)] = np.abs(alpha)
            _heat_map(axes, values, names, [f"{i + 1}" for i in range(units)], PowerNorm(0.5, 0, 1))
            axes.set_xlabel("unit")
            return self._svg(figure, title)

    def _svg(self, figure: Figure, title: str) -> Markup:
        """The figure as an <svg> element with a title for screen readers."""
        text = _print(figure)
        text = text[text.index("<svg") :]
        mark = f"p{next(self._numbers)}-"
        text = re.sub(r'\bid="', f'id="{mark}', text)
        text = re.sub(r'(href="#|url\(#)', rf"\g<1>{mark}", text)
        text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
        text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
        for color, page in _PAGE.items():
            text = text.replace(color, page)
        width, height = (float(side) for side in re.findall(r'(?:width|height)="([\d.]+)pt"', text)[:2])
        text = re.sub(r'width="[\d.]+pt"', f'width="{width * 4 / 3:.0f}"', text, count=1)
        text = re.sub(r'height="[\d.]+pt"', f'height="{height * 4 / 3:.0f}"', text, count=1)
        text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
        text = text.replace("<svg", '<svg class="plot" role="img"', 1)
        opened = text.index(">") + 1
        # Safe as markup: matplotlib's SVG, and escaped parts.
        return Markup(f"{text[:opened]}<title>{escape(title)}</title>{text[opened:]}")


def svg_file(figure: FigureData) -> str:
    """The figure of `Plots.panels` as an SVG document with colors of its own on a white ground."""
    with matplotlib.rc_context(_STYLE):
        drawn = _panels(figure)
        drawn.set_facecolor("white")
        text = _print(drawn)
    for color, own in _FILE.items():
        text = text.replace(color, own)
    return text


def _print(figure: Figure) -> str:
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return out.getvalue()


def _panels(figure: FigureData) -> Figure:
    columns = min(len(figure.panels), 3)
    rows = -(-len(figure.panels) // columns)
    spec = figure.spec
    names = [] if spec.heat_map else list(map(_lines, [*figure.panels[0].lines, *figure.panels[0].levels]))
    legend_columns = min(len(names), 2 if columns == 1 else 4)
    tilted = max(_tilted_height(panel.layers, 32) for panel in figure.panels)
    height = (2.5 + tilted) * rows + (_legend_height(names, legend_columns) if names else 0)
    drawn = Figure(figsize=(max(4.4, 2.9 * columns), height), layout="constrained")
    cells = list(drawn.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(cells, figure.panels, strict=False):
        if spec.heat_map:
            xs = sorted({point.x for points in panel.lines.values() for point in points})
            values = np.full((len(panel.lines), len(xs)), np.nan)
            for row, points in zip(values, panel.lines.values(), strict=True):
                row[[xs.index(point.x) for point in points]] = [point.mean for point in points]
            labels = [panel.layers[int(x)] if panel.layers else f"{x:g}" for x in xs]
            _heat_map(axes, values, [_lines(name) for name in panel.lines], [_lines(label) for label in labels])
            axes.set_ylabel(_lines(spec.y, 36))
        else:
            _line_panel(axes, panel, log_x=spec.log_x)
        if panel.layers:
            axes.tick_params("x", rotation=60 if tilted else 0)
        axes.set_xlabel(_lines(panel.x, 36))
        axes.set_title(_lines(f"{panel.title}, {panel.unit}", 36))
    for axes in cells[len(figure.panels) :]:
        axes.remove()
    if names:
        drawn.legend(*drawn.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=legend_columns)
    return drawn


def _line_panel(axes: Axes, panel: Panel, *, log_x: bool) -> None:
    is_scatter = any(point.label for points in panel.lines.values() for point in points)
    for i, (name, points) in enumerate(panel.lines.items()):
        axes.errorbar(
            [point.x for point in points],
            [point.mean for point in points],
            [point.std for point in points],
            [point.x_std for point in points] if is_scatter else None,
            label=_lines(name),
            color=COLORS[i % len(COLORS)],
            marker=MARKERS[i % len(MARKERS)],
            linestyle="none" if is_scatter else "-" if i < len(COLORS) else ":",
            markersize=4,
            capsize=2,
        )
        for point in points if is_scatter else ():
            axes.annotate(point.label, (point.x, point.mean), (4, 2), textcoords="offset points", fontsize=7)
    for i, (name, level) in enumerate(panel.levels.items()):
        axes.axhline(level, label=_lines(name), color=INK, linewidth=0.9, linestyle=("--", ":", "-.")[i % 3])
    if log_x:
        axes.set_xscale("log")
    ticks = sorted({point.x for points in panel.lines.values() for point in points})
    if panel.layers:
        axes.set_xticks(range(len(panel.layers)), map(_lines, panel.layers))
    elif len(ticks) < 8 and not is_scatter:
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()


def _heat_map(
    axes: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], norm: Normalize | None = None
) -> None:
    """Values (R, C), NaN where missing, with their numbers if there is room, else with a color bar."""
    image = axes.imshow(values, cmap="Blues", norm=norm, aspect="auto", interpolation="nearest")
    axes.grid(visible=False)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns)
    if len(columns) > MAX_NUMBERS:
        axes.figure.colorbar(image, ax=axes)
        return
    shades = np.asarray(image.norm(values))
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = "white" if shades[row, column] > 0.6 else "black"  # on the cell's own color
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=color)


def _lines(name: str, width: int = CHARACTERS) -> str:
    return "\n".join(wrap(name, width))


def _legend_height(names: Sequence[str], columns: int) -> float:
    """Of a legend below the axes, in inches."""
    return 0.1 + 0.16 * -(-len(names) // columns) * max(name.count("\n") + 1 for name in names)


def _tilted_height(labels: Sequence[str], characters: int) -> float:
    """Of the labels of an x axis, in inches; 0 if they fit side by side and need not be tilted."""
    if sum(len(label) + 1 for label in labels) <= characters:
        return 0.0
    return 0.06 * min(CHARACTERS, max(map(len, labels)))


def _curves(axes: Axes, rows: Sequence[Mapping[str, float]], name: str, scale: float) -> None:
    for key, label, color, marker in ((name, "training", COLORS[0], ""), (f"val_{name}", "validation", COLORS[1], "o")):
        points = [(row.get("epoch", row.get("step", 0.0)), scale * row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, label=label, marker=marker, markersize=2.6)


def _cut_peak(axes: Axes, losses: Sequence[float], chance_loss: float) -> None:
    """Limit the y axis, so that a very high loss in the first steps does not flatten the rest."""
    later = max(losses[len(losses) // 10 :] or losses, default=chance_loss)
    top = 1.08 * max(chance_loss, min(later, 2 * chance_loss))
    if losses and max(losses) > top:
        axes.set_ylim(top=top)
