"""The index: what is written is read, and its fingerprint follows contents, labels and order, never the place."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index, read_index, write_index


def same(one: Index, other: Index) -> bool:
    plain = ("root", "paths", "classes", "digests", "notes", "skipped", "spec")
    arrays = ("labels", "sizes", "multi_label")
    return all(getattr(one, key) == getattr(other, key) for key in plain) and all(
        np.array_equal(getattr(one, key), getattr(other, key)) for key in arrays
    )


def test_index_round_trip(tmp_path: Path, index: Index) -> None:
    write_index(tmp_path / "a.parquet", index)
    write_index(tmp_path / "b.parquet", index)
    read = read_index(tmp_path / "a.parquet")
    assert same(read, index)
    assert read.fingerprint == index.fingerprint
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_index_round_trip_multi_label(tmp_path: Path, index: Index) -> None:
    presence = np.array([[1, 0], [-1, -1], [-1, 1]], np.int8)
    several = replace(index, labels=np.full(3, -1, np.int32), multi_label=presence)
    write_index(tmp_path / "a.parquet", several)
    assert same(read_index(tmp_path / "a.parquet"), several)
    assert several.fingerprint != replace(several, multi_label=-presence).fingerprint


def test_index_round_trip_unusual_names(tmp_path: Path, index: Index) -> None:
    names = ["a\tb.jpg", "line\nbreak.jpg", 'it\'s; "so" é.jpg']
    odd = replace(index, paths=names, notes={}, skipped=dict.fromkeys([*names, "c\\n"], "reason\twith\nsigns"))
    write_index(tmp_path / "a.parquet", odd)
    assert same(read_index(tmp_path / "a.parquet"), odd)
    lines = (tmp_path / "a.skipped.tsv").read_text().split("\n")
    assert lines.pop() == ""
    assert len(lines) == 5
    assert all(line.count("\t") == 1 for line in lines)
    assert {line.split("\t")[0] for line in lines[1:]} == {"a\\tb.jpg", "line\\nbreak.jpg", names[2], "c\\\\n"}


def test_skipped_files_do_not_change_index_bytes(tmp_path: Path, index: Index) -> None:
    write_index(tmp_path / "a.parquet", index)
    write_index(tmp_path / "b.parquet", replace(index, skipped={}))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "a.skipped.tsv").unlink()
    assert same(read_index(tmp_path / "a.parquet"), replace(index, skipped={}))


def test_index_is_a_plain_parquet_table(tmp_path: Path, index: Index) -> None:
    write_index(tmp_path / "a.parquet", index)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["class"].to_pylist() == ["a", "a", "b"]
    assert table["sample"].to_pylist() == [0, 1, 2]
    write_index(tmp_path / "b.parquet", replace(index, labels=np.full(3, -1, np.int32), classes=[]))
    assert pq.read_table(tmp_path / "b.parquet")["class"].to_pylist() == [None] * 3


def test_fingerprint_depends_on_content(index: Index) -> None:
    assert replace(index, root=Path("/elsewhere")).fingerprint == index.fingerprint
    assert replace(index, skipped={}).fingerprint == index.fingerprint
    back = [2, 1, 0]
    others = [
        replace(index, digests=["d1", "d2", "d4"]),
        replace(index, labels=np.array([0, 1, 1], np.int32)),
        replace(index, classes=["a", "c"]),
        replace(index, paths=["a/1.jpg", "a/2.jpg", "b/4.jpg"]),
        replace(
            index,
            paths=[index.paths[place] for place in back],
            digests=[index.digests[place] for place in back],
            labels=index.labels[back],
        ),
        replace(index, paths=index.paths[:2], digests=index.digests[:2], labels=index.labels[:2]),
        replace(index, classes=["a\nb"]),
    ]
    prints = {index.fingerprint, *(other.fingerprint for other in others)}
    assert len(prints) == 1 + len(others)


def test_shared_images_are_found_by_content(index: Index) -> None:
    other = replace(index, paths=["x", "y", "z"], digests=["d9", "d2", "d2"])
    assert index.num_shared_with(other) == 2
    assert other.num_shared_with(index) == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped", "other table"])
def test_read_index_reports_damaged_file(tmp_path: Path, index: Index, damage: str) -> None:
    path = tmp_path / "a.parquet"
    write_index(path, index)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        # Parquet itself would read the changed digest of an image without an error.
        place = content.index(b"d3")
        content[place] ^= 1
    damaged: dict[str, bytes | bytearray] = {"cut": content[:-9], "text": b"text", "flipped": content}
    path.write_bytes(damaged.get(damage, b""))
    if damage == "other table":
        pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(
        ArtifactError, match=r"damaged, or not a valid index of images; remove it and run the index stage"
    ):
        read_index(path)


def test_read_index_reports_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing; run the index stage"):
        read_index(tmp_path / "none.parquet")


@pytest.mark.parametrize("large", ["table", "list"])
def test_write_index_keeps_both_files_consistent_on_full_disk(small_disk: Path, index: Index, large: str) -> None:
    path = small_disk / "a.parquet"
    write_index(path, index)
    before = {file.name: file.read_bytes() for file in small_disk.iterdir()}
    many = replace(index, skipped={f"{place:0200d}": "reason" for place in range(10_000)})
    if large == "table":
        names = [str(number) for number in np.random.default_rng(0).random(60_000)]
        many = replace(
            index,
            paths=names,
            digests=names,
            labels=np.zeros(len(names), np.int32),
            sizes=np.zeros((len(names), 2), np.int32),
            skipped={"other": "reason"},
        )
    with pytest.raises(ArtifactError, match="the disk is full"):
        write_index(path, many)
    assert {file.name: file.read_bytes() for file in small_disk.iterdir()} == before
