"""Result tables: one row per model, one column per value, the paper's columns beside them."""

import csv
import fnmatch
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ssltransfer.artifacts.metrics import Metrics
from ssltransfer.config import ConfigError
from ssltransfer.config.base import suggest
from ssltransfer.config.entities import Report
from ssltransfer.config.entities import Table as TableSpec
from ssltransfer.config.protocols import PROTOCOLS, ProtocolOptions
from ssltransfer.config.references import Reference, Value, reference_of
from ssltransfer.report.load_results import Kind, Results
from ssltransfer.report.text import NOTHING, number, with_std

GROUPS: tuple[tuple[Kind, str], ...] = (
    ("supervised", "Supervised baselines"),
    ("learned", "Without labels"),
    ("unranked", "Imported weights, and students of imported or supervised teachers"),
    ("random", "Random baselines"),
)
UNRANKED: tuple[Kind, ...] = ("supervised", "unranked")
PROTOCOLS_BY_NAME = {str(kind.model_fields["name"].default): kind for kind in PROTOCOLS}


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        key: as the configuration writes it: evaluation, or evaluation:value.
        value: None for the primary metric; `title` is its name in either case.
        unit: of the value; `common_unit` is that of most values of the protocol.
        lower_is_better: whether smaller values are better.
        paper: the corresponding column of the reference.
    """

    key: str
    evaluation: str
    value: str | None
    title: str
    protocol: str
    unit: str
    train: str
    test: str
    chance: float | None
    paper: str | None = None
    lower_is_better: bool = False
    common_unit: str = ""

    @property
    def digits(self) -> int:
        """Digits after the point: errors in meters need more than percentages."""
        return 3 if self.lower_is_better else 1


@dataclass(frozen=True)
class Cell:
    """A value, its text, and whether it is the best of its column among the unsupervised rows."""

    text: str
    mean: float | None = None
    std: float | None = None
    seeds: int = 0
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A model with its numbers and, beside them, the paper's.

    Attributes:
        model: its name, or that of the row where several are averaged; `models`: how many they are.
    """

    model: str
    models: int
    kind: Kind
    cells: tuple[Cell, ...]
    paper_row: str | None = None
    paper: tuple[Value | None, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table ready to be shown."""

    title: str
    columns: tuple[Column, ...]
    groups: tuple[tuple[str, Kind, tuple[Row, ...]], ...]
    reference: Reference | None = None

    @property
    def spans(self) -> list[tuple[Column, int]]:
        """Neighboring columns of one evaluation share a head: its first column, and how many they are."""
        runs = [list(run) for _, run in groupby(self.columns, key=lambda column: column.evaluation)]
        return [(run[0], len(run)) for run in runs]

    @property
    def paired(self) -> tuple[Column, ...]:
        """Columns with a corresponding column of the paper."""
        return tuple(column for column in self.columns if column.paper)

    @property
    def has_best(self) -> bool:
        """Whether a model is the best one of a column."""
        return any(cell.best for _, _, rows in self.groups for row in rows for cell in row.cells)

    @property
    def has_chance(self) -> bool:
        """True if any column has a chance level."""
        return any(column.chance is not None for column in self.columns)


def build_tables(report: Report, results: Results) -> list[Table]:
    """The configured tables, or one of all models under all evaluations.

    Raises:
        ConfigError: a table names an unknown evaluation, value or model.
    """
    specs = report.tables
    if not specs and results.evaluations:
        specs = (TableSpec(title="All models under all evaluations", columns=tuple(results.evaluations)),)
    return [_build(spec, results) for spec in specs]


def _build(spec: TableSpec, results: Results) -> Table:
    where = f"report.tables: {spec.title!r}"
    columns = tuple(_column(key, spec, results, where) for key in spec.columns)
    members = _members(spec, _rows(spec, columns, results, where))
    reference = reference_of(spec)
    kinds = {row: results.kind(models[0]) for row, models in members.items()}
    found = {row: [_metrics(results, column, models) for column in columns] for row, models in members.items()}
    # Baselines alone have no best model.
    ranked = [row for row in found if kinds[row] not in UNRANKED] if "learned" in kinds.values() else []
    best = [_best({row: found[row][i] for row in ranked}, column) for i, column in enumerate(columns)]
    rows = [
        Row(
            row,
            len(members[row]),
            kinds[row],
            tuple(_cell(metrics, columns[i], row in best[i]) for i, metrics in enumerate(found[row])),
            spec.reference_rows.get(row),
            tuple(reference.value(spec.reference_rows.get(row), c.paper) for c in columns if c.paper)
            if reference
            else (),
        )
        for row in members
    ]
    groups = tuple((title, kind, tuple(row for row in rows if row.kind == kind)) for kind, title in GROUPS)
    return Table(spec.title, columns, tuple(group for group in groups if group[2]), reference)


def _column(key: str, spec: TableSpec, results: Results, where: str) -> Column:
    evaluation, _, value = key.partition(":")
    measured = results.evaluations.get(evaluation)
    if not measured and results.partial:
        return Column(key, evaluation, value or None, value, "", "", "", "", None, spec.reference_columns.get(key))
    if not measured:
        raise ConfigError(
            f"{where}: no evaluation named {evaluation!r} has results{suggest(evaluation, results.evaluations)}"
        )
    if value and not any(value in metrics.values for metrics in measured):
        known = sorted({name for metrics in measured for name in metrics.values})
        raise ConfigError(f"{where}: {evaluation} has no value {value!r}{suggest(value, known)}")
    first = measured[0]
    protocol = PROTOCOLS_BY_NAME.get(first.protocol_name, ProtocolOptions)
    # The chance level belongs to the primary metric and to the accuracies of single layers.
    has_chance = not value or value == first.primary_metric or value in first.known_details.layers
    return Column(
        key=key,
        evaluation=evaluation,
        value=value or None,
        title=value or first.primary_metric,
        protocol=first.protocol_name,
        unit=protocol.units.get(value, first.unit),
        train=first.dataset_name("train"),
        test=first.dataset_name("test"),
        chance=first.chance if has_chance else None,
        paper=spec.reference_columns.get(key),
        lower_is_better=value in protocol.lower_is_better,
        common_unit=first.unit,
    )


def _rows(spec: TableSpec, columns: Sequence[Column], results: Results, where: str) -> list[str]:
    measured = {column.evaluation for column in columns}
    having = {m.model for name in measured for m in results.evaluations.get(name, [])}
    ordered = [name for name in results.models if name in having] + sorted(having - set(results.models))
    if not spec.rows:
        return ordered
    rows: list[str] = []
    for pattern in spec.rows:
        matching = [name for name in ordered if fnmatch.fnmatchcase(name, pattern)]
        if not matching and not results.partial:
            raise ConfigError(f"{where}: no model with results matches {pattern!r}{suggest(pattern, ordered)}")
        rows += [name for name in matching if name not in rows]
    return rows


def _members(spec: TableSpec, models: Sequence[str]) -> dict[str, list[str]]:
    """Row -> its models: one, or all that are averaged, at the position of the first."""
    rows: dict[str, list[str]] = {}
    for model in models:
        averaged = [row for row, pattern in spec.aggregate.items() if fnmatch.fnmatchcase(model, pattern)]
        for row in averaged or [model]:
            rows.setdefault(row, []).append(model)
    return rows


def _metrics(results: Results, column: Column, models: Sequence[str]) -> Metrics | None:
    """Metrics of one model; of several models, with the mean of each in place of a seed."""
    found = [
        metrics
        for model in models
        for metrics in results.evaluations.get(column.evaluation, [])
        if metrics.model == model and (column.value is None or column.value in metrics.values)
    ]
    if len(models) == 1 or not found:
        return found[0] if found else None
    shown = column.value or found[0].primary_metric
    return replace(found[0], values={shown: [m.mean(shown) for m in found]}, seeds=list(range(len(found))))


def _best(found: Mapping[str, Metrics | None], column: Column) -> set[str]:
    """The rows with the best mean; none if there is only one row."""
    means = {row: round(metrics.mean(column.value), 6) for row, metrics in found.items() if metrics}
    if len(means) < 2:
        return set()
    best = min(means.values()) if column.lower_is_better else max(means.values())
    return {row for row, mean in means.items() if mean == best}


def _cell(metrics: Metrics | None, column: Column, best: bool) -> Cell:
    if metrics is None:
        return Cell(NOTHING)
    value = column.value
    text = with_std(metrics, value, column.digits)
    return Cell(text, metrics.mean(value), metrics.std(value), len(metrics.seeds), best)


def as_text(tables: Sequence[Table]) -> str:
    """The tables as plain text: models in rows, evaluations in columns."""
    return "\n\n".join(map(_as_text, tables)) + ("\n" if tables else "")


def _as_text(table: Table) -> str:
    head = [table.title, *(column.key for column in table.columns)]
    body: list[list[str]] = []
    for _, kind, rows in table.groups:
        for row in rows:
            mark = "" if kind == "learned" else f" ({kind})"
            several = f" ({row.models} models)" if row.models > 1 else ""
            body.append([row.model + several + mark, *(cell.text + ("*" if cell.best else " ") for cell in row.cells)])
    if table.has_chance:
        body.append(["chance level", *(number(column.chance) + " " for column in table.columns)])
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = [_line(head, widths), "-" * (sum(widths) + 2 * (len(widths) - 1)), *(_line(line, widths) for line in body)]
    units = sorted({column.unit for column in table.columns} - {""})
    lines.append(f"in {', '.join(units)}{'; * best model without labels' if table.has_best else ''}")
    return "\n".join(lines)


def _line(cells: list[str], widths: list[int]) -> str:
    first, *others = (
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()


def as_csv(tables: Sequence[Table]) -> str:
    """All values as CSV, one per line, with standard deviation and number of seeds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "model", "kind", "column", "unit", "mean", "std", "seeds", "chance"])
    for table in tables:
        for _, kind, rows in table.groups:
            for row in rows:
                for column, cell in zip(table.columns, row.cells, strict=True):
                    if cell.mean is not None:
                        std = "" if cell.std is None else f"{cell.std:.6g}"
                        chance = "" if column.chance is None else f"{column.chance:.6g}"
                        mean = f"{cell.mean:.6g}"
                        writer.writerow(
                            [table.title, row.model, kind, column.key, column.unit, mean, std, cell.seeds, chance]
                        )
    return out.getvalue()
