"""Result tables of the papers, with the provenance of each number."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml

from ssltransfer.config.base import ConfigError, suggest
from ssltransfer.config.entities import Report, Table

Provenance = Literal["verified", "second", "recalled"]
_LETTERS: dict[str, Provenance] = {"v": "verified", "s": "second", "r": "recalled"}


@dataclass(frozen=True)
class Value:
    """A number of a paper, as printed.

    Attributes:
        provenance: read in the paper (verified), quoted in another source (second), or recalled.
    """

    text: str
    provenance: Provenance


@dataclass(frozen=True)
class Reference:
    """A table of a paper.

    Attributes:
        rows: row name -> one value or None for each of `columns`.
    """

    name: str
    source: str
    title: str
    unit: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[Value | None, ...]]
    notes: tuple[str, ...] = ()

    def value(self, row: str | None, column: str) -> Value | None:
        """A cell; None if the paper has no value, or `row` is None."""
        return self.rows[row][self.columns.index(column)] if row is not None else None

    @property
    def provenances(self) -> set[Provenance]:
        """The provenances that occur in the table."""
        return {value.provenance for row in self.rows.values() for value in row if value}


@cache
def references() -> dict[str, Reference]:
    """All tables of references.yaml."""
    text = (files("ssltransfer.config") / "references.yaml").read_text(encoding="utf-8")
    return {
        name: Reference(
            name=name,
            source=entry["source"],
            title=entry["title"],
            unit=entry["unit"],
            columns=tuple(entry["columns"]),
            rows={str(row): tuple(map(_value, cells)) for row, cells in entry["rows"].items()},
            notes=tuple(entry.get("notes", ())),
        )
        for name, entry in yaml.safe_load(text).items()
    }


def _value(cell: str | None) -> Value | None:
    return None if cell is None else Value(cell[:-1], _LETTERS[cell[-1]])


def check_references(report: Report) -> None:
    """Check the references of the report's tables.

    Raises:
        ConfigError: a reference table, row or column does not exist.
    """
    for table in report.tables:
        where = f"report.tables: {table.title!r}"
        if table.reference is None:
            if table.reference_rows or table.reference_columns:
                raise ConfigError(
                    f"{where}: reference_rows and reference_columns need `reference`, the name of a paper's table."
                )
            continue
        _known(table.reference, references(), f"{where}: no reference is called")
        reference = references()[table.reference]
        for row in table.reference_rows.values():
            _known(row, reference.rows, f"{where}: {table.reference} has no row")
        for column in table.reference_columns.values():
            _known(column, reference.columns, f"{where}: {table.reference} has no column")
        for column in table.reference_columns:
            _known(column, table.columns, f"{where}: reference_columns names no column of this table:")


def _known(word: str, allowed: Iterable[str], says: str) -> None:
    allowed = list(allowed)
    if word not in allowed:
        raise ConfigError(f"{says} {word!r}{suggest(word, allowed)}")


def reference_of(table: Table) -> Reference | None:
    """The paper's table that a table of the report is compared with."""
    return references()[table.reference] if table.reference else None
