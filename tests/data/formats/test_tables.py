"""Tables of images: every kind of file gives the same listing, and wrong cells are refused with one sentence."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from ssltransfer.artifacts.index import read_index
from ssltransfer.config.formats import Holdout, Table
from ssltransfer.data.formats import LayoutError, find
from ssltransfer.stages import index as stage

NAMES = ["a b/c d.png", 'it\'s/"so".png', "é/ü,;.png", "tab/a\tb.png", "line/a\nb.png", "10.png"]
LABELS = ["10", "9", "10", "", "9", "2"]
TAGS = [["cat", "dog"], [], ["dog"], ["cat"], ["bird", "cat"], ["dog"]]
SPLITS = ["train", "train", "test", "train", "test", "train"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for value, name in enumerate(NAMES):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 12, 3), value, np.uint8)).save(tmp_path / "images" / name)
    return tmp_path / "images"


def rows() -> list[dict[str, Any]]:
    columns = (NAMES, LABELS, TAGS, SPLITS)
    keys = ("file_name", "label", "tags", "split")
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


def write(file: Path, content: list[dict[str, Any]], delimiter: str = ",") -> Path:
    """The rows as a table of the kind that the suffix says."""
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), "utf-8")
    elif file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), file)
    else:
        with file.open("w", newline="", encoding="utf-8-sig") as text:
            writer = csv.DictWriter(text, list(content[0]), delimiter="\t" if file.suffix == ".tsv" else delimiter)
            writer.writeheader()
            writer.writerows({**row, "tags": "|".join(row["tags"])} if "tags" in row else row for row in content)
    return file


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl"])
def test_tables_of_every_kind_list_paths_and_labels(root: Path, kind: str) -> None:
    table = write(root / f"metadata.{kind}", rows())
    found = find(Table.model_validate({"table": str(table), "label": "label"}))
    assert (found.root, found.paths) == (root, NAMES)
    assert found.classes == ["2", "9", "10"]  # by value, so that integers keep their order
    assert found.labels == [2, 1, 2, -1, 1, 0]
    assert found.notes == [f"{table}: 1 images have no label."]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl"])
def test_tables_with_lists_have_several_labels(root: Path, kind: str) -> None:
    table = write(root / f"metadata.{kind}", rows())
    found = find(Table.model_validate({"table": str(table), "labels": "tags"}))
    assert found.labels is None and found.multi_label is not None and found.multi_label.dtype == np.int8
    assert found.classes == ["bird", "cat", "dog"]
    present = [{found.classes[column] for column in np.flatnonzero(row == 1)} for row in found.multi_label]
    assert present == [set(tags) for tags in TAGS] and set(found.multi_label.ravel()) == {1, -1}


def test_table_with_a_column_per_class_knows_unknown(root: Path) -> None:
    cells = [("1", "0"), ("", "1.0"), ("true", "False"), ("0", "0"), ("0", "1"), ("1", "")]
    content = [{"file": name, "cat": cat, "dog": dog} for name, (cat, dog) in zip(NAMES, cells, strict=True)]
    table = write(root.parent / "labels.csv", content, ";")
    found = find(Table.model_validate({"root": str(root), "table": str(table), "labels": ["dog", "cat"]}))
    assert found.classes == ["dog", "cat"] and found.multi_label is not None
    assert found.multi_label.tolist() == [[-1, 1], [1, 0], [-1, 1], [-1, -1], [1, -1], [0, 1]]
    content[3]["dog"] = "maybe"
    write(table, content)
    with pytest.raises(LayoutError, match="row 4 of column 'dog' is 'maybe'; use 1, 0 or an empty cell"):
        find(Table.model_validate({"root": str(root), "table": str(table), "labels": ["dog", "cat"]}))


def test_table_split_keeps_the_classes_of_all_rows(root: Path) -> None:
    table = write(root / "metadata.csv", rows())
    options = {"table": str(table), "label": "label"}
    found = find(Table.model_validate({**options, "split": "test"}))
    assert found.paths == [NAMES[2], NAMES[4]] and found.labels == [2, 1] and found.classes == ["2", "9", "10"]
    assert find(Table.model_validate({**options, "split": "10", "split_column": "label"})).paths == [NAMES[0], NAMES[2]]
    with pytest.raises(LayoutError, match="no row of split 'tset'; did you mean 'test'"):
        find(Table.model_validate({**options, "split": "tset"}))


def test_parquet_integers_with_missing_values_are_integers(root: Path) -> None:
    content = [{"path": name, "label": value} for name, value in zip(NAMES, [1.0, 0.0, None, 1.0, 10.0, 2.0])]  # noqa: B905
    table = write(root / "t.parquet", content)
    found = find(Table.model_validate({"table": str(table), "label": "label"}))
    assert found.classes == ["0", "1", "2", "10"] and found.labels == [1, 0, -1, 1, 3, 2]


def test_table_accepts_absolute_paths_below_its_root(root: Path) -> None:
    table = write(root.parent / "t.csv", [{"path": str(root / name)} for name in NAMES])
    assert find(Table.model_validate({"root": str(root), "table": str(table)})).paths == NAMES


@pytest.mark.parametrize(
    "change, options, match",
    [
        ({}, {"label": "lable"}, r"no column 'lable'; did you mean 'label'\? Allowed: file_name, label, split, tags"),
        ({}, {"path": "file"}, r"no column 'file'; did you mean 'file_name'"),
        ({}, {"split": "test", "split_column": "set"}, "no column 'set'"),
        ({"file_name": ""}, {}, "row 3 has no path"),
        ({"file_name": "./" + NAMES[1]}, {}, "is in rows 2 and 3; keep one row per image"),
    ],
)
def test_table_refuses_with_one_sentence(root: Path, change: dict[str, str], options: Any, match: str) -> None:
    content = rows()
    content[2] |= change
    table = write(root / "t.csv", content)
    with pytest.raises(LayoutError, match=match) as refusal:
        find(Table.model_validate({"table": str(table), **options}))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("t.xlsx", b"PK", "unknown kind of table; use .csv, .tsv, .parquet, .jsonl"),
        ("t.csv", b"path,label\na.png\n", "line 2 has 1 cells, the header has 2"),
        ("t.csv", b"path,label\n", "has no rows"),
        ("t.csv", b"name,label\na.png,1\n", "has no column path, file_name, .*name the column of the paths in `path`"),
        ("t.csv", b"path,path\na.png,1\n", "two columns are called 'path'"),
        ("t.csv", b"path\n\xff.png\n", "not UTF-8 text"),
        ("t.csv", b"path\nmoved/a.png\n", "its images are not in .*set `root` to the folder"),
        ("t.parquet", b"PAR1", "damaged"),
        ("t.jsonl", b'{"path": "a.png"\n', "damaged"),
    ],
)
def test_table_refuses_damaged_files(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LayoutError, match=match):
        find(Table.model_validate({"table": str(tmp_path / name)}))
    (tmp_path / name).unlink()
    with pytest.raises(LayoutError, match=r"cannot be read|unknown kind"):
        find(Table.model_validate({"table": str(tmp_path / name)}))


def test_table_options_refuse_contradictions() -> None:
    with pytest.raises(ValidationError, match="not both"):
        Table.model_validate({"table": "t.csv", "label": "a", "labels": "b"})
    with pytest.raises(ValidationError, match="name it in `labels`"):
        Table.model_validate({"table": "t.csv", "label": "a", "separator": ";"})
    kinds = [
        Table.model_validate({"table": "t.csv", **one}).label_type for one in ({}, {"label": "a"}, {"labels": "a"})
    ]
    assert kinds == ["none", "single", "multi"]


def test_index_of_a_table_skips_missing_images_and_divides_by_share(root: Path, tmp_path: Path) -> None:
    content = [{"file_name": f"n/{number}.png", "label": number % 3} for number in range(60)]
    (root / "n").mkdir()
    for number in range(60):
        Image.fromarray(np.full((12, 12, 3), number, np.uint8)).save(root / "n" / f"{number}.png")
    table = write(root / "metadata.csv", [*content, {"file_name": "gone.png", "label": "0"}])
    parts = []
    for part in ("train", "val"):
        holdout = Holdout(fraction=0.2, part=part)
        spec = Table.model_validate({"table": str(table), "label": "label", "holdout": holdout})
        stage.run(Table.parse(spec.canonical()), output=tmp_path / f"{part}.parquet", threads=1)
        parts.append(read_index(tmp_path / f"{part}.parquet"))
    assert sorted([*parts[0].paths, *parts[1].paths]) == sorted(str(row["file_name"]) for row in content)
    assert 5 <= len(parts[1]) <= 20 and parts[0].classes == parts[1].classes == ["0", "1", "2"]
    skipped = parts[0].skipped | parts[1].skipped
    assert skipped == {"gone.png": "cannot be opened: No such file or directory"}


def test_changed_table_changes_the_spec(root: Path) -> None:
    table = write(root / "metadata.csv", rows())
    before = Table.model_validate({"table": str(table)})
    write(table, rows()[:2])
    after = Table.model_validate({"table": str(table)})
    assert before.canonical() != after.canonical()
    with pytest.raises(LayoutError, match="has changed since the configuration was read"):
        find(before)


def test_table_may_name_images_in_an_archive(root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in NAMES[:4]:
            archive.write(root / name, f"top/{name}")
    table = write(tmp_path / "t.csv", rows())
    found = find(
        Table.model_validate({"root": str(tmp_path / "images.zip/top"), "table": str(table), "label": "label"})
    )
    assert found.paths == NAMES[:4] and found.labels == [2, 1, 2, -1] and found.members is not None
    assert found.skipped == dict.fromkeys(NAMES[4:], "not in the archive")
