"""The data flow as a drawing: what was made of what, a column for each stage, every name a link."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ssltransfer.report.load_results import Results
from ssltransfer.report.text import anchor, shorten

STAGES = ("index", "pretext", "features", "cluster", "label", "student", "evaluate")
TITLES = ("datasets", "pretexts", "features", "clusters", "labels", "students", "evaluations")
WIDTH, GAP, HEIGHT, STEP, TOP = 142, 34, 22, 30, 26  # of a box and between boxes, in pixels

Key = tuple[str, str]


@dataclass
class Node:
    """A named thing.

    Attributes:
        parents: what it was made of.
        round: 0, or how often the chain went back to an earlier stage (a student that became a teacher).
    """

    stage: str
    name: str
    parents: list[Key] = field(default_factory=list)
    round: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def short(self) -> str:
        """The name as it fits the box."""
        return shorten(self.name, 22)

    @property
    def anchor(self) -> str:
        """Where the page speaks of it."""
        return anchor(self.stage, self.name)


@dataclass(frozen=True)
class Flow:
    """A drawing: boxes, lines as SVG paths (true: past a column or more), column titles with their x."""

    nodes: list[Node]
    lines: list[tuple[str, bool]]
    titles: list[tuple[float, str]]
    width: float
    height: float
    omitted: int


def lay_out(results: Results) -> Flow:
    """Columns by stage, each box near those that it was made of.

    Features that only an evaluation reads are left out (a line goes from the model to the evaluation), for they would
    be as many as models times protocols.
    """
    nodes = {(node.stage, node.name): node for node in _nodes(results)}
    for node in nodes.values():
        node.parents = [key for key in dict.fromkeys(node.parents) if key in nodes]
    _rounds(nodes)
    last = max((node.round for node in nodes.values()), default=0)
    columns: dict[tuple[int, int], list[Node]] = {}
    for node in nodes.values():
        place = (last if node.stage == "evaluate" else node.round, STAGES.index(node.stage))
        columns.setdefault(place, []).append(node)
    titles: list[tuple[float, str]] = []
    for number, place in enumerate(sorted(columns)):
        x = number * (WIDTH + GAP)
        titles.append((x, TITLES[place[1]] + (", again" if place[0] and place[1] < 6 else "")))
        _fill(columns[place], x, nodes)
    lines = [_line(nodes[key], node) for node in nodes.values() for key in node.parents]
    height = max((node.y + HEIGHT for node in nodes.values()), default=0) + 2
    omitted = sum(1 for made in results.features.values() if ("features", _plain(made.name)) not in nodes)
    return Flow(list(nodes.values()), lines, titles, max(0, len(columns) * (WIDTH + GAP) - GAP), height, omitted)


def _plain(features: str) -> str:
    return features.partition("/")[0]


def _nodes(results: Results) -> Iterator[Node]:
    for name in results.datasets:
        yield Node("index", name)
    for name, made in results.models.items():
        method = made.spec.get("method", {})
        parents = [key for parent in (method.get("teacher"), made.spec.get("data")) for key in _models(results, parent)]
        if "cluster" in method:
            parents = [("label", f"{method['cluster']}/{made.spec.get('data')}")]
        yield Node(made.stage, name, parents)
    clustered = {made.spec.get("features") for made in results.clusters.values()}
    for made in results.features.values():
        if _plain(made.name) in clustered:
            data = [made.name.partition("/")[2]] if _is_clustered(results, made.name) else []
            parents = [key for name in (made.spec.get("model"), *data) for key in _models(results, name)]
            yield Node("features", _plain(made.name), parents)
    for name, made in results.clusters.items():
        yield Node("cluster", name, [("features", str(made.spec.get("features")))])
    for name, labelled in results.labels.items():
        if labelled.cluster in results.clusters:
            yield Node("label", name, [("cluster", labelled.cluster), ("index", labelled.dataset)])
    for name, measured in results.evaluations.items():
        models = [key for metrics in measured for key in _models(results, metrics.model)]
        yield Node("evaluate", name, models)


def _is_clustered(results: Results, features: str) -> bool:
    name, _, data = features.partition("/")
    return any(
        made.spec.get("features") == name and made.spec.get("data") == data for made in results.clusters.values()
    )


def _models(results: Results, name: Any) -> list[Key]:
    if name in results.models:
        return [(results.models[name].stage, name)]
    return [("index", name)] if name in results.datasets else []


def _rounds(nodes: dict[Key, Node]) -> None:
    """Longest number of steps back to an earlier stage; the chain has no circle, so as many sweeps as nodes do."""
    for _ in nodes:
        changed = False
        for node in nodes.values():
            for parent in (nodes[key] for key in node.parents):
                back = STAGES.index(parent.stage) >= STAGES.index(node.stage)
                if parent.round + back > node.round:
                    node.round, changed = parent.round + back, True
        if not changed:
            return


def _fill(column: list[Node], x: float, nodes: dict[Key, Node]) -> None:
    """Boxes from the top, ordered by the mean height of what they were made of."""

    def wanted(node: Node) -> float:
        heights = [nodes[key].y for key in node.parents if nodes[key].y]
        return sum(heights) / len(heights) if heights else 0.0

    for place, node in enumerate(sorted(column, key=lambda node: (wanted(node), node.name))):
        node.x, node.y = x, TOP + place * STEP


def _line(start: Node, end: Node) -> tuple[str, bool]:
    x, y = start.x + WIDTH, start.y + HEIGHT / 2
    to_x, to_y = end.x, end.y + HEIGHT / 2
    bend = (to_x - x) / 2
    path = f"M{x:g},{y:g}C{x + bend:g},{y:g} {to_x - bend:g},{to_y:g} {to_x:g},{to_y:g}"
    return path, to_x - x > GAP
