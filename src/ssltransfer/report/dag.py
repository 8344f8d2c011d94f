"""The data flow as an SVG graph: one column per stage, every box a link."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from ssltransfer.config.entities import Pretext, Student
from ssltransfer.config.methods import ClusterClassification, Distillation
from ssltransfer.report.load_results import Results
from ssltransfer.report.text import anchor, wrap

STAGES = ("index", "pretext", "features", "cluster", "label", "student", "evaluate")
TITLES = ("datasets", "pretexts", "features", "clusters", "labels", "students", "evaluations")
WIDTH, GAP, HEIGHT, STEP, TOP = 142, 34, 22, 30, 26  # of a box and between boxes, in pixels
LINE, CHARACTERS = 13, 21  # height of a line of text in pixels, and its length

Key = tuple[str, str]


@dataclass
class Node:
    """A result.

    Attributes:
        parents: its inputs.
        cycle: how often the chain returned to an earlier stage, as for a student that became a teacher.
    """

    stage: str
    name: str
    parents: list[Key] = field(default_factory=list)
    cycle: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def lines(self) -> list[str]:
        """The name in lines that fit the box."""
        return wrap(self.name, CHARACTERS)

    @property
    def height(self) -> int:
        """Of the box, in pixels."""
        return HEIGHT + LINE * (len(self.lines) - 1)

    @property
    def anchor(self) -> str:
        """Link target on the page."""
        return anchor(self.stage, _plain(self.name) if self.stage == "features" else self.name)


@dataclass(frozen=True)
class Flow:
    """A graph: boxes, edges as SVG paths (True: they skip a column), column titles with their x.

    `omitted` is the number of features that are not drawn.
    """

    nodes: list[Node]
    edges: list[tuple[str, bool]]
    titles: list[tuple[float, str]]
    width: float
    height: float
    omitted: int


def lay_out(results: Results) -> Flow:
    """Columns by stage, with each box near its inputs.

    Features that only evaluations read are omitted, because there is one set for each model and protocol. Their edge
    goes from the model to the evaluation.
    """
    nodes = {(node.stage, node.name): node for node in _nodes(results)}
    for node in nodes.values():
        node.parents = [key for key in dict.fromkeys(node.parents) if key in nodes]
    _set_cycles(nodes)
    last = max((node.cycle for node in nodes.values()), default=0)
    columns: dict[tuple[int, int], list[Node]] = {}
    for node in nodes.values():
        column = (last if node.stage == "evaluate" else node.cycle, STAGES.index(node.stage))
        columns.setdefault(column, []).append(node)
    titles: list[tuple[float, str]] = []
    for number, column in enumerate(sorted(columns)):
        x = number * (WIDTH + GAP)
        titles.append((x, TITLES[column[1]] + (", again" if column[0] and column[1] < 6 else "")))
        _fill(columns[column], x, nodes)
    edges = [_edge(nodes[key], node) for node in nodes.values() for key in node.parents]
    height = max((node.y + node.height for node in nodes.values()), default=0) + 2
    drawn = {_plain(name) for stage, name in nodes if stage == "features"}
    omitted = sum(_plain(name) not in drawn for name in results.features)
    return Flow(list(nodes.values()), edges, titles, max(0, len(columns) * (WIDTH + GAP) - GAP), height, omitted)


def _plain(features: str) -> str:
    return features.partition("/")[0]


def _nodes(results: Results) -> Iterator[Node]:
    for name, dataset in results.datasets.items():
        cluster = results.clusters.get(dataset.content.spec.get("curate", {}).get("cluster", ""))
        yield Node("index", name, [("label", f"{cluster.name}/{cluster.content.spec.data}")] if cluster else [])
    for name, record in results.models.items():
        yield Node(record.stage, name, _model_inputs(results, record.content.spec))
    # A box per dataset: features of images that were chosen by clusters of other images would be their own input.
    specs = {name: record.content.spec for name, record in results.clusters.items()}
    read = {name: f"{spec.features}/{spec.data}" for name, spec in specs.items()}
    taught = {_teacher_features(results, record.content.spec) for record in results.models.values()}
    for name, features in results.features.items():
        if name in {*read.values(), *taught}:
            yield Node("features", name, _find(results, features.content.spec.model, name.partition("/")[2]))
    for name, source in read.items():
        yield Node("cluster", name, [("features", source)])
    for name, labels in results.labels.items():
        if labels.cluster in results.clusters:
            yield Node("label", name, [("cluster", labels.cluster), ("index", labels.dataset)])
    for name, measured in results.evaluations.items():
        yield Node("evaluate", name, _find(results, *(metrics.model for metrics in measured)))


def _model_inputs(results: Results, spec: Pretext | Student) -> list[Key]:
    method = spec.method if isinstance(spec, Student) else None
    if isinstance(method, ClusterClassification):
        return [("label", f"{method.cluster}/{spec.data}"), *_find(results, spec.init)]
    teachers = (method.teacher, *method.further) if isinstance(method, Distillation) else ()
    features = _teacher_features(results, spec)
    return [*([("features", features)] if features else []), *_find(results, *teachers, spec.init, spec.data)]


def _teacher_features(results: Results, spec: Pretext | Student) -> str | None:
    """Features of a file that teach a student, with its dataset; None for other models."""
    method = spec.method if isinstance(spec, Student) else None
    if not isinstance(method, Distillation) or method.teacher in results.models:
        return None
    name = f"{method.teacher}/{spec.data}"
    return name if name in results.features else None


def _find(results: Results, *names: str | None) -> list[Key]:
    """Models and datasets of these names."""
    found = [(results.models[name].stage if name in results.models else "index", name) for name in names if name]
    return [key for key in found if key[1] in results.models or key[1] in results.datasets]


def _set_cycles(nodes: dict[Key, Node]) -> None:
    """Largest number of returns to an earlier stage on any path."""
    for key in TopologicalSorter({key: node.parents for key, node in nodes.items()}).static_order():
        node = nodes[key]
        for parent in node.parents:
            returned = STAGES.index(parent[0]) >= STAGES.index(node.stage)
            node.cycle = max(node.cycle, nodes[parent].cycle + returned)


def _fill(column: list[Node], x: float, nodes: dict[Key, Node]) -> None:
    """Boxes from the top, ordered by the mean height of their inputs."""

    def mean_height(node: Node) -> float:
        heights = [nodes[key].y for key in node.parents if nodes[key].y]
        return sum(heights) / len(heights) if heights else 0.0

    y = TOP
    for node in sorted(column, key=lambda node: (mean_height(node), node.name)):
        node.x, node.y = x, y
        y += node.height + STEP - HEIGHT


def _edge(start: Node, end: Node) -> tuple[str, bool]:
    x, y = start.x + WIDTH, start.y + start.height / 2
    to_x, to_y = end.x, end.y + end.height / 2
    bend = (to_x - x) / 2
    path = f"M{x:g},{y:g}C{x + bend:g},{y:g} {to_x - bend:g},{to_y:g} {to_x:g},{to_y:g}"
    return path, to_x - x > GAP
