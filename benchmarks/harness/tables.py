"""Results as a Markdown table, as a plot and in docs/performance.md."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure as Drawing

from benchmarks.harness.measure import OURS, Comparison, Figure, NotRun, Result
from ssltransfer.report.plots import COLORS

HEAD = (
    *("benchmark", "case", "ours, median (slowest)", "baseline", "its median (slowest)"),
    *("relative speed", "goal", "met", "upper bound"),
)
Results = Mapping[str, Sequence[Result]]


def markdown(machine: Mapping[str, Any], results: Results) -> str:
    """The machine, then a table with one line per baseline."""
    lines = [", ".join(f"{key} {value}" for key, value in machine.items() if key != "host"), ""]
    lines += ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for name, found in results.items():
        lines += ["| " + " | ".join((name, *cells)) + " |" for result in found for cells in _cells(result)]
    return "\n".join(lines) + "\n"


def _cells(result: Result) -> Iterator[tuple[str, ...]]:
    none = "–"
    if isinstance(result, NotRun):
        yield (result.case, f"not run: {result.why}", *[none] * 6)
    elif isinstance(result, Figure):
        value, unit = median(result.samples), f" {result.unit}".rstrip()
        ours = f"{value:.3g}{unit} ({min(result.samples):.3g})"
        bound = none if result.goal is None else f"≤ {result.goal:g}{unit}"
        yield result.case, ours, none, none, none, bound, _met(result.goal, value, at_most=True), none
    else:
        bounds = ", ".join(
            f"{median(result.samples[name]) / median(result.samples[OURS]):.0%} of {name}"
            for name in result.upper_bounds
        )
        for baseline, goal in result.goals.items():
            speed, low, high = result.speed(baseline)
            aim = none if goal is None else f"≥ {goal:.3g}x"
            times = f"{speed:.2f}x as fast ({low:.2f}–{high:.2f})"
            yield (
                result.case,
                _rate(result, OURS),
                baseline,
                _rate(result, baseline),
                times,
                aim,
                _met(goal, speed),
                bounds or none,
            )


def _rate(result: Comparison, name: str) -> str:
    """Units per second, or seconds if a call is one unit."""
    seconds = result.samples[name]
    if result.work == 1:
        return f"{median(seconds):.3g} s ({min(seconds):.3g})"
    return f"{result.work / median(seconds):,.0f} {result.unit}/s ({result.work / max(seconds):,.0f})"


def _met(goal: float | None, value: float, *, at_most: bool = False) -> str:
    if goal is None:
        return "–"
    return "yes" if (value <= goal if at_most else value >= goal) else "**no**"


def as_json(machine: Mapping[str, Any], results: Results) -> str:
    """All results with all samples."""
    content = {row: [{"kind": type(one).__name__, **asdict(one)} for one in found] for row, found in results.items()}
    return json.dumps({"machine": dict(machine), "results": content}, indent=1, ensure_ascii=False) + "\n"


def previous_results(file: Path, machine: Mapping[str, Any]) -> dict[str, list[Result]]:
    """Results already in the file, if machine, day, versions and rounds are the same."""
    if not file.is_file():
        return {}
    content = json.loads(file.read_text("utf-8"))
    if content["machine"] != json.loads(json.dumps(dict(machine))):
        return {}
    kinds = {kind.__name__: kind for kind in (Comparison, Figure, NotRun)}
    return {row: [kinds[one.pop("kind")](**one) for one in found] for row, found in content["results"].items()}


def plot(results: Results, path: Path) -> None:
    """Relative speed with its range over rounds, and the goals."""
    lines = [
        (textwrap.fill(f"{row}: {one.case}, {baseline}", 75), one.speed(baseline), goal)
        for row, found in results.items()
        for one in found
        if isinstance(one, Comparison)
        for baseline, goal in one.goals.items()
    ]
    drawing = Drawing(figsize=(8, 1 + 0.3 * len(lines)), layout="constrained")
    axes = drawing.subplots()
    for place, (_, (speed, low, high), goal) in enumerate(reversed(lines)):
        axes.plot([low, high], [place, place], color=COLORS[0], linewidth=1.4)
        axes.plot(speed, place, "o", color=COLORS[0], markersize=5, label="" if place else "ours")
        if goal is not None:
            axes.plot(goal, place, "|", color=COLORS[1], markersize=11, label="" if place else "goal")
    axes.axvline(1, color="0.5", linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xlabel("relative speed (line: range over rounds; tick: goal)")
    axes.set_yticks(range(len(lines)), [name for name, _, _ in reversed(lines)], fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path)


def replace_section(file: Path, what: str, text: str) -> None:
    """Replace a generated section of a document.

    Raises:
        ValueError: the document lacks the marks of the section.
    """
    begin, end = f"<!-- {what}: written by python -m benchmarks --docs -->", f"<!-- end of {what} -->"
    content = file.read_text("utf-8")
    if begin not in content or end not in content.split(begin, 1)[1]:
        raise ValueError(f"{file}: has no lines '{begin}' and '{end}'; add them.")
    before, rest = content.split(begin, 1)
    file.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.split(end, 1)[1]}", "utf-8")
