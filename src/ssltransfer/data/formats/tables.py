"""Tables of images: CSV, TSV, Parquet and JSON Lines with paths, labels and splits."""

from __future__ import annotations

import csv
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssltransfer.artifacts.archives import archive_of
from ssltransfer.config.base import ConfigError, suggest
from ssltransfer.config.formats.tables import LabeledByColumns, Table
from ssltransfer.data.archives import members_of
from ssltransfer.data.formats import FORMATS, DatasetListing, LayoutError
from ssltransfer.data.formats.folders import listing_of

PATH_COLUMNS = ("path", "file_name", "filename", "file", "image")
PRESENCE = {"1": 1, "true": 1, "0": -1, "false": -1, "": 0}
"""Cells of a column for one class, as `DatasetListing.multi_label`; an empty cell is neither trained nor scored."""

Columns = Mapping[str, Sequence[Any]]


@FORMATS.register(Table)
def find(dataset: Table, *, workers: int = 1) -> DatasetListing:
    """Images of the rows of a split, in the order of the table; the classes are those of all rows."""
    try:
        file = dataset.table.checked()
    except ConfigError as error:
        raise LayoutError(str(error)) from None
    columns = _read(file, lambda names: _wanted(dataset, names, file))
    paths, *_ = columns.values()
    chosen = _rows_of_split(dataset, columns, file)
    found = replace(labeled(dataset, columns, file), root=Path(dataset.root), paths=list(paths)).subset(chosen)
    found = replace(found, paths=_checked_paths(found.paths, chosen, dataset.root, file))
    return _located(found, file)


def labeled(dataset: LabeledByColumns, columns: Columns, where: Path) -> DatasetListing:
    """Labels and classes of all rows; without paths.

    Raises:
        LayoutError: a cell is not a label.
    """
    listing = DatasetListing(where, [])
    if dataset.label is not None:
        names = list(map(_text, columns[dataset.label]))
        classes = _sorted(names)
        number = {name: label for label, name in enumerate(classes)}
        labels = [number.get(name, -1) for name in names]
        missing = labels.count(-1)
        notes = [f"{where}: {missing} images have no label."] if missing else []
        return replace(listing, labels=labels, classes=classes, notes=notes)
    if isinstance(dataset.labels, str):
        several = [_labels_of(cell, dataset.separator) for cell in columns[dataset.labels]]
        classes = _sorted(name for present in several for name in present)
        number = {name: label for label, name in enumerate(classes)}
        multi_label = np.full((len(several), len(classes)), -1, np.int8)
        for row, present in enumerate(several):
            multi_label[row, [number[name] for name in present]] = 1
        return replace(listing, classes=classes, multi_label=multi_label)
    if dataset.labels is not None:
        parts = [_presence(columns[name], name, where) for name in dataset.labels]
        return replace(listing, classes=list(dataset.labels), multi_label=np.stack(parts, axis=1))
    return listing


def _wanted(dataset: Table, names: Sequence[str], file: Path) -> list[str]:
    """The columns that are read, the one of the paths first."""
    path = dataset.path or next((name for name in PATH_COLUMNS if name in names), None)
    if path is None:
        raise LayoutError(
            f"{file}: has no column {', '.join(PATH_COLUMNS)}; name the column of the paths in `path`. Its columns: "
            f"{', '.join(names)}."
        )
    labels = dataset.labels if isinstance(dataset.labels, tuple) else (dataset.labels,)
    given = [path, dataset.label, *labels, dataset.split_column if dataset.split is not None else None]
    wanted = list(dict.fromkeys(name for name in given if name is not None))
    for name in wanted:
        if name not in names:
            raise LayoutError(f"{file}: has no column {name!r}{suggest(name, names)}")
    return wanted


def _rows_of_split(dataset: Table, columns: Columns, file: Path) -> list[int]:
    paths, *_ = columns.values()
    if dataset.split is None:
        return list(range(len(paths)))
    splits = list(map(_text, columns[dataset.split_column]))
    chosen = [row for row, split in enumerate(splits) if split == dataset.split]
    if not chosen:
        raise LayoutError(f"{file}: has no row of split {dataset.split!r}{suggest(dataset.split, set(splits))}")
    return chosen


def _checked_paths(cells: Sequence[Any], chosen: list[int], root: str, file: Path) -> list[str]:
    """The path of each chosen row, relative to the root if it is below it."""
    row_of: dict[str, int] = {}
    for row, cell in zip(chosen, cells, strict=True):
        if not cell or not isinstance(cell, str):
            what = f"a {type(cell).__name__} instead of a path" if cell else "no path"
            raise LayoutError(f"{file}: row {row + 1} has {what}; every row names an image file by its path.")
        path = posixpath.normpath(cell)
        if posixpath.isabs(path):
            path = path.removeprefix(posixpath.join(posixpath.normpath(root), ""))
        if path in row_of:
            raise LayoutError(
                f"{file}: {path!r} is in rows {row_of[path] + 1} and {row + 1}; keep one row per image (several "
                "labels belong in one cell, see `labels`)."
            )
        row_of[path] = row
    return list(row_of)


def _located(found: DatasetListing, file: Path) -> DatasetListing:
    """The listing with the images' positions, if its root is an archive; missing images are skipped there."""
    archive = archive_of(found.root)
    if archive is None:
        if not any((found.root / path).exists() for path in islice(found.paths, 100)):
            raise LayoutError(
                f"{file}: its images are not in {found.root} (the first: {found.paths[0]}); set `root` to the folder "
                "that its paths start from."
            )
        return found
    listing, inner = listing_of(archive), found.root.relative_to(archive).as_posix()
    names = [posixpath.normpath(posixpath.join(inner, path)) for path in found.paths]
    there = [row for row, name in enumerate(names) if name in listing.files]
    skipped = {
        path: "not in the archive" for path, name in zip(found.paths, names, strict=True) if name not in listing.files
    }
    if not there:
        raise LayoutError(f"{file}: its images are not in {found.root} (the first: {found.paths[0]}); check `root`.")
    members = members_of([(listing, names[row]) for row in there])
    return replace(found.subset(there), members=members, skipped=skipped)


def _text(cell: Any) -> str:
    """A cell as a class name; empty for a missing value, "3" for 3.0, because a missing value makes integers floats."""
    if cell is None or cell != cell:  # NaN
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).strip()


def _sorted(names: Iterable[str]) -> list[str]:
    """Distinct names in order; integers by their value, so that labels 0, 1, 2, ... keep their number."""
    found = set(names) - {""}
    if all(re.fullmatch(r"-?\d+", name) for name in found):
        return sorted(found, key=lambda name: (int(name), name))
    return sorted(found)


def _labels_of(cell: Any, separator: str) -> set[str]:
    parts = cell if isinstance(cell, list) else _text(cell).split(separator)
    return set(map(_text, parts)) - {""}


def _presence(cells: Sequence[Any], name: str, where: Path) -> np.ndarray:
    values = [PRESENCE.get(_text(cell).lower().removesuffix(".0")) for cell in cells]
    if None in values:
        row = values.index(None)
        raise LayoutError(
            f"{where}: row {row + 1} of column {name!r} is {cells[row]!r}; use 1, 0 or an empty cell. For texts name "
            f"one column: labels: {name}."
        )
    return np.array(values, np.int8)


_Choose = Callable[[Sequence[str]], list[str]]


def _read(file: Path, choose: _Choose) -> Columns:
    """The columns that `choose` selects by the names of all.

    Raises:
        LayoutError: the file is missing, damaged or of another kind.
    """
    try:
        reader = _READERS[file.suffix.lower()]
    except KeyError:
        raise LayoutError(f"{file}: unknown kind of table; use {', '.join(_READERS)}.") from None
    try:
        columns = reader(file, choose)
    except OSError as error:
        raise LayoutError(f"{file}: cannot be read ({error.strerror or error}); check the path of the table.") from None
    except UnicodeDecodeError:
        raise LayoutError(f"{file}: not UTF-8 text; save this table as UTF-8.") from None
    except (csv.Error, pa.ArrowException, ValueError) as error:
        raise LayoutError(f"{file}: damaged ({error}); write it again.") from None
    if not next(iter(columns.values())):
        raise LayoutError(f"{file}: has no rows.")
    return columns


def _read_csv(file: Path, choose: _Choose) -> Columns:
    with file.open(newline="", encoding="utf-8-sig") as text:
        head = text.readline()
        text.seek(0)
        delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=head.count)
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        names = next(rows, [])
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise csv.Error(f"two columns are called {twice!r}")
        places = {name: names.index(name) for name in choose(names)}
        columns: dict[str, list[Any]] = {name: [] for name in places}
        for row in rows:
            if not row:
                continue
            if len(row) != len(names):
                raise csv.Error(f"line {rows.line_num} has {len(row)} cells, the header has {len(names)}")
            for name, place in places.items():
                columns[name].append(row[place])
    return columns


def _read_json_lines(file: Path, choose: _Choose) -> Columns:
    with file.open(encoding="utf-8-sig") as text:
        rows = [json.loads(line) for line in text if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not a JSON object")
    names = choose(list(dict.fromkeys(name for row in rows for name in row)))
    return {name: [row.get(name) for row in rows] for name in names}


def _read_parquet(file: Path, choose: _Choose) -> Columns:
    with pq.ParquetFile(file) as content:
        names = choose(content.schema_arrow.names)
        table = content.read(columns=names)
    return {name: table[name].to_pylist() for name in names}


_READERS: dict[str, Callable[[Path, _Choose], Columns]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
}
