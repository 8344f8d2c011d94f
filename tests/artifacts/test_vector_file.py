"""Files of features that were made elsewhere: what is accepted, and what is refused in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssltransfer.api import Embeddings
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.artifacts.vector_file import read_vectors, vector_dims

PATHS = ["a.jpg", "b/c.jpg", "d.jpg"]
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4) / 7


def parquet(file: Path, vectors: pa.Array, paths: list[str | None] | None = None) -> Path:
    pq.write_table(pa.table({"path": pa.array(paths or PATHS), "embedding": vectors, "caption": ["x"] * 3}), file)
    return file


def lists(kind: pa.DataType) -> pa.Array:
    return pa.array(VECTORS.tolist(), kind)


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32()), pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 4)],
    ids=str,
)
def test_read_vectors_of_parquet_lists(kind: pa.DataType, tmp_path: Path) -> None:
    file = parquet(tmp_path / "v.parquet", lists(kind))
    found = read_vectors(file)
    assert found.rows == {"a.jpg": 0, "b/c.jpg": 1, "d.jpg": 2}
    np.testing.assert_array_equal(found.vectors.astype(np.float32), VECTORS)
    assert vector_dims(file) == 4


@pytest.mark.parametrize("names", [("path", "feature"), ("paths", "features"), ("paths", "vectors")])
def test_read_vectors_of_npz_arrays(names: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "v.npz"
    arrays: dict[str, Any] = {names[0]: np.array(PATHS), names[1]: VECTORS, "scale": np.ones(3)}
    np.savez(file, about=np.array("CLIP"), **arrays)
    found = read_vectors(file)
    assert list(found.rows) == PATHS
    np.testing.assert_array_equal(found.vectors, VECTORS)
    assert vector_dims(file) == 4


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_read_vectors_accepts_files_of_embed(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"v{suffix}"
    Embeddings(PATHS, VECTORS, tmp_path, {}).save(file)
    found = read_vectors(file)
    assert list(found.rows) == PATHS
    np.testing.assert_array_equal(found.vectors, VECTORS)


def test_rows_of_index_are_in_its_order(objects: Index, tmp_path: Path) -> None:
    index = replace(objects.subset(np.arange(2)), paths=["d.jpg", "a.jpg"])
    found = read_vectors(parquet(tmp_path / "v.parquet", lists(pa.list_(pa.float32()))))
    assert found.rows_of(index).tolist() == [2, 0]
    with pytest.raises(ArtifactError, match=r"no vector for 1 of the 2 images of .* \(the first: 'e.jpg'\).*'a.jpg'"):
        found.rows_of(replace(index, paths=["d.jpg", "e.jpg"]))


NAN = VECTORS.copy()
NAN[1, 2] = np.nan


@pytest.mark.parametrize(
    ("vectors", "paths", "message"),
    [
        (pa.array(NAN.tolist()), None, "vector of 'b/c.jpg' is not finite"),
        (pa.array([[1.0], None, [2.0]]), None, "missing .null."),
        (pa.array([[1.0], [None], [2.0]]), None, "vector of 'b/c.jpg' is not finite"),
        (pa.array([[1.0], [1.0, 2.0], [2.0]]), None, "of 1 to 2 numbers"),
        (lists(pa.list_(pa.float32())), ["a.jpg", "b.jpg", "a.jpg"], "1 paths occur more than once .*'a.jpg'"),
        (lists(pa.list_(pa.float32())), ["a.jpg", None, "c.jpg"], "missing .null."),
        (pa.array([1.0, 2.0, 3.0]), None, "one column with lists of floating-point numbers, but has none"),
    ],
)
def test_read_vectors_refuses_invalid_columns(
    vectors: pa.Array, paths: list[str | None] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_vectors(parquet(tmp_path / "v.parquet", vectors, paths))


def test_read_vectors_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        read_vectors(tmp_path / "v.npz")
    for name in ("v.parquet", "v.npz"):
        (tmp_path / name).write_text("<html>")
        with pytest.raises(ArtifactError, match="cannot be read"):
            read_vectors(tmp_path / name)
        assert vector_dims(tmp_path / name) is None
    with pytest.raises(ArtifactError, match="give it one of these suffixes"):
        read_vectors(tmp_path / "v.csv")
    np.savez(tmp_path / "v.npz", paths=np.array(PATHS), a=VECTORS, b=VECTORS)
    with pytest.raises(ArtifactError, match=r"several \(a, b\)"):
        read_vectors(tmp_path / "v.npz")
    np.savez(tmp_path / "v.npz", paths=np.array(PATHS[:2]), a=VECTORS)
    with pytest.raises(ArtifactError, match="2 paths and 3 vectors"):
        read_vectors(tmp_path / "v.npz")
