"""Features that were made elsewhere: a file with the path and the vector of each image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index

_PATHS = ("path", "paths")
_BLOCK = 1 << 14  # rows that are checked at a time


@dataclass(frozen=True)
class VectorFile:
    """Vectors of images, in memory.

    Attributes:
        rows: path of an image, below the root of its dataset -> its row.
        vectors: floating point (N, D).
    """

    file: Path
    rows: dict[str, int]
    vectors: np.ndarray

    def rows_of(self, index: Index) -> np.ndarray:
        """The row of each image, int64 (len(index),). The file may have further rows.

        Raises:
            ArtifactError: an image has no vector.
        """
        rows = np.array([self.rows.get(path, -1) for path in index.paths], np.int64)
        if (missing := np.flatnonzero(rows < 0)).size:
            raise ArtifactError(
                f"{self.file}: no vector for {missing.size} of the {len(index)} images of {index.root} (the first: "
                f"{index.paths[int(missing[0])]!r}); its paths must start from that folder, but they are like "
                f"{next(iter(self.rows), '')!r}."
            )
        return rows


def read_vectors(file: Path) -> VectorFile:
    """Read and check a .parquet file (column path, and one column of lists of floating-point numbers) or an .npz file
    (array path or paths, and one floating-point array of shape (N, D)). Files of `ssltransfer embed` are such files.

    Raises:
        ArtifactError: missing or another kind of file, a path occurs twice, a vector has another length than the
            first, or a value is not finite.
    """
    paths, vectors = _read(file)
    rows = {path: row for row, path in enumerate(paths)}
    if len(rows) < len(paths):
        doubled = next(path for row, path in enumerate(paths) if rows[path] != row)
        raise ArtifactError(f"{file}: {len(paths) - len(rows)} paths occur more than once (the first: {doubled!r}).")
    if len(paths) != len(vectors):
        raise ArtifactError(f"{file}: {len(paths)} paths and {len(vectors)} vectors; each image needs one vector.")
    for start in range(0, len(vectors), _BLOCK):
        broken = np.flatnonzero(~np.isfinite(vectors[start : start + _BLOCK]).all(1))
        if broken.size:
            raise ArtifactError(f"{file}: the vector of {paths[start + int(broken[0])]!r} is not finite.")
    return VectorFile(file, rows, vectors)


def vector_dims(file: Path) -> int | None:
    """Length of the vectors of a file; None if it cannot be read."""
    try:
        return int(_read(file, first=True)[1].shape[1])
    except ArtifactError:
        return None


def _read(file: Path, *, first: bool = False) -> tuple[Sequence[str], np.ndarray]:
    """Paths and vectors; of a parquet file only the first row if `first`."""
    if file.suffix not in (".parquet", ".npz"):
        raise ArtifactError(f"{file}: features are read from .parquet and .npz files; give it one of these suffixes.")
    try:
        return _of_parquet(file, first) if file.suffix == ".parquet" else _of_npz(file)
    except FileNotFoundError:
        raise ArtifactError(f"{file}: no such file; check the path.") from None
    except (OSError, ValueError, BadZipFile, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ArtifactError(f"{file}: cannot be read ({reason}).") from None


def _of_parquet(file: Path, first: bool) -> tuple[Sequence[str], np.ndarray]:
    with pq.ParquetFile(file) as opened:
        lists = [field.name for field in opened.schema_arrow if _is_vector(field.type)]
        path = _only(file, [name for name in opened.schema_arrow.names if name in _PATHS], "column `path`")
        name = _only(file, lists, "column with lists of floating-point numbers")
        if first:
            table = pa.Table.from_batches(opened.iter_batches(1, columns=[path, name]))
        else:
            table = opened.read([path, name])
    column, paths = table[name].combine_chunks(), table[path]
    if isinstance(column, pa.ChunkedArray):  # of a table without rows
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if column.null_count or paths.null_count:
        raise ArtifactError(f"{file}: a path or a vector is missing (null); each image needs one vector.")
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) != 1:
        shown = f"of {lengths.min()} to {lengths.max()} numbers" if len(lengths) else "missing"
        raise ArtifactError(f"{file}: vectors are {shown}; all need the same length.")
    return paths.to_pylist(), column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)


def _is_vector(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in lists) and pa.types.is_floating(kind.value_type)


def _of_npz(file: Path) -> tuple[Sequence[str], np.ndarray]:
    with np.load(file) as arrays:
        path = _only(file, [name for name in arrays.files if name in _PATHS], "array `path`")
        found = {name: arrays[name] for name in arrays.files if name != path}
        paths = arrays[path].astype(str).tolist()
    vectors = [name for name, value in found.items() if value.ndim == 2 and value.dtype.kind == "f"]
    return paths, found[_only(file, vectors, "floating-point array of shape (N, D)")]


def _only(file: Path, names: list[str], what: str) -> str:
    if len(names) != 1:
        found = f"several ({', '.join(names)})" if names else "none"
        raise ArtifactError(f"{file}: it must have one {what}, but has {found}.")
    return names[0]
