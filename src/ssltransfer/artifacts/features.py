"""The feature store: a Zarr 3 group with an array `features` in index order, one file per chunk of whole rows.

The group also has the path and label of each row, and attributes that name the model, layer and dataset, so that
`xarray.open_zarr` reads it as a dataset.

A chunk is the unit of work and of resume. A missing chunk reads as NaN, never as zeros, and `missing` finds it.
The default codec pipeline writes a chunk to a temporary file and renames it, so a chunk with its final name is
complete. Several processes may write one store at the same time, each its own chunks.
"""

import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from ssltransfer.artifacts.files import ArtifactError, file_digest, friendly_os_errors, sync
from ssltransfer.artifacts.manifest import FeaturesManifest, read_manifest
from ssltransfer.artifacts.strings import PIECE

CHUNK_BYTES = 24 << 20  # 16-32 MB per chunk: the fastest measured layout for writing and sequential reading
STORE = "features.zarr"  # in the work directory


class FeatureStore:
    """A matrix of features on disk.

    Attributes:
        shape: (rows, dimensions).
        rows: rows in a chunk.
    """

    def __init__(self, path: Path, array: zarr.Array):
        self.path, self._array = path, array
        self.shape: tuple[int, int] = (array.shape[0], array.shape[1])
        self.dtype = np.dtype(array.dtype)
        self.rows: int = array.chunks[0]

    @classmethod
    def create(cls, path: Path, n: int, dims: int, dtype: str, *, compression: str | None = None) -> Self:
        """Open the store at `path` or create it; another process may do the same.

        `compression` is None, or zstd for features with many zeros.

        Raises:
            ArtifactError: the disk is full, or the existing store has another shape or type.
        """
        if (path / "features" / "zarr.json").is_file():
            return cls.open(path)._checked((n, dims), dtype)
        rows = chunk_rows(n, dims, np.dtype(dtype))
        with friendly_os_errors(path), suppress(zarr.errors.ContainsArrayError):
            zarr.create_array(
                path / "features",
                shape=(n, dims),
                chunks=(rows, dims),
                dtype=dtype,
                fill_value=float("nan"),
                compressors=ZstdCodec(level=1) if compression else None,
                dimension_names=("sample", "dimension"),
                attributes={"coordinates": "path label"},
            )
        return cls.open(path)._checked((n, dims), dtype)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing store.

        Raises:
            ArtifactError: there is none, or its zarr.json is damaged.
        """
        try:
            # Otherwise every chunk is compared with the fill value, which is slow for float16.
            array = zarr.open_array(path / "features", mode="r+").with_config({"write_empty_chunks": True})
        except (FileNotFoundError, zarr.errors.BaseZarrError):
            raise ArtifactError(f"{path}: no feature store; run the features stage.") from None
        except ValueError:
            raise ArtifactError(f"{path}: zarr.json is damaged; remove this store, run the features stage.") from None
        return cls(path, array)

    def _checked(self, shape: tuple[int, int], dtype: str) -> Self:
        if self.shape != shape or self.dtype != np.dtype(dtype):
            raise ArtifactError(
                f"{self.path}: contains {self.shape} {self.dtype}, not {shape} {dtype}; remove it and run again."
            )
        return self

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.shape[0] // self.rows)

    def span(self, chunk: int) -> slice:
        """Rows of a chunk."""
        return slice(chunk * self.rows, min(self.shape[0], (chunk + 1) * self.rows))

    def chunk_file(self, chunk: int) -> Path:
        """The file of a chunk."""
        return self.path / "features" / "c" / str(chunk) / "0"

    def missing(self) -> list[int]:
        """Chunks that are not on disk yet, or were truncated by a power failure."""
        return [chunk for chunk in range(self.chunks) if not self._is_whole(chunk)]

    def _is_whole(self, chunk: int) -> bool:
        try:
            size = self.chunk_file(chunk).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return False
        # Zarr pads the last chunk, so that all have the same size. Decompression detects truncated ones.
        return size > 0 if self._array.compressors else size == self.rows * self.shape[1] * self.dtype.itemsize

    def write(self, chunk: int, values: np.ndarray) -> None:
        """Write a whole chunk (rows, dims) and sync its content.

        Its directory entry is safe after `flush`: a power failure before that may lose the chunk, but never truncate
        it.

        Raises:
            ArtifactError: the disk is full or not writable; the chunk is then missing.
        """
        file = self.chunk_file(chunk)
        # A chunk has one writer, so a partial file next to it is from a killed process.
        for leftover in file.parent.glob("*.partial"):
            leftover.unlink(missing_ok=True)
        with friendly_os_errors(self.path):
            self._array[self.span(chunk)] = values
            sync(file)

    def flush(self) -> None:
        """Sync the folders of all chunks: once, because a journal commit takes longer than a chunk.

        Raises:
            ArtifactError: the disk failed.
        """
        with friendly_os_errors(self.path):
            folder = self.path / "features" / "c"
            for path in (*folder.iterdir(), folder) if folder.is_dir() else ():
                sync(path)

    def describe(self, paths: Sequence[str], labels: np.ndarray, attributes: dict[str, Any]) -> None:
        """Write the path and the label of each row, int32 (N,) with -1 for none, and attributes of the store.

        One process does this, after the chunks. Equal arguments give equal bytes.

        Raises:
            ArtifactError: the disk is full or not writable.
        """
        n = len(paths)
        with friendly_os_errors(self.path), warnings.catch_warnings():
            # Zarr 3 does not specify strings and consolidated metadata yet; zarr-python and xarray read and write both.
            warnings.filterwarnings("ignore", ".*Zarr (V3|format 3) specification")
            group = zarr.open_group(self.path, mode="a")
            group.attrs.put(attributes)
            options: dict[str, Any] = {"chunks": (min(n, PIECE),), "dimension_names": ("sample",), "overwrite": True}
            names = group.create_array("path", shape=(n,), dtype=str, **options)
            for start in range(0, n, PIECE):
                names[start : start + PIECE] = np.array(paths[start : start + PIECE], object)
            group.create_array("label", data=labels.astype(np.int32), **options)
            zarr.consolidate_metadata(self.path)
            for file in (self.path / "zarr.json", *self.path.glob("path/**/*"), *self.path.glob("label/**/*")):
                sync(file)

    def description(self) -> tuple[list[str], dict[str, Any]]:
        """The paths of the rows and the attributes.

        Raises:
            ArtifactError: they are missing.
        """
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*does not have a Zarr V3 specification")
                group = zarr.open_group(self.path, mode="r")
                return np.asarray(group["path"]).tolist(), dict(group.attrs)
        except (KeyError, FileNotFoundError, zarr.errors.BaseZarrError):
            raise ArtifactError(f"{self.path}: has no paths; it is not complete.") from None

    def read(self, span: slice) -> np.ndarray:
        """Read rows, (rows, dims) in the stored dtype.

        Raises:
            ArtifactError: a chunk is damaged.
        """
        first, stop, _ = span.indices(self.shape[0])
        chunks = range(first // self.rows, -(-stop // self.rows))
        if not self._array.compressors and first < stop and all(map(self._is_whole, chunks)):
            # Read the files directly: Zarr would copy the bytes two more times.
            values = np.empty((stop - first, self.shape[1]), self.dtype.newbyteorder("<"))
            for chunk in chunks:
                begin, end = max(first, chunk * self.rows), min(stop, (chunk + 1) * self.rows)
                with self.chunk_file(chunk).open("rb") as file:
                    file.seek((begin - chunk * self.rows) * self.shape[1] * self.dtype.itemsize)
                    file.readinto(values[begin - first : end - first].data.cast("B"))
            return values
        try:
            return np.asarray(self._array[span])
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(
                f"{self.path}: rows {span.start} to {span.stop} are damaged ({error}); remove this store and run the "
                "features stage again."
            ) from None

    def blocks(self, rows: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """All rows in order, at most `rows` or a chunk at a time."""
        for chunk in range(self.chunks):
            span = self.span(chunk)
            step = min(rows or self.rows, self.rows)
            for start in range(span.start, span.stop, step):
                part = slice(start, min(start + step, span.stop))
                yield part, self.read(part)

    def digests(self) -> list[str]:
        """Content digest of every chunk file, for the manifest.

        Raises:
            ArtifactError: a chunk is missing.
        """
        missing = self.missing()
        if missing:
            raise ArtifactError(f"{self.path}: chunk {missing[0]} is missing; run the features stage again.")
        return [file_digest(self.chunk_file(chunk)) for chunk in range(self.chunks)]


class Writer:
    """Writes chunks in a thread while the next ones are computed; at most one waits for the thread.

    A context manager: its end waits for the chunk being written, and drops the waiting one if the block failed.
    """

    def __init__(self, store: FeatureStore):
        self._store, self._thread = store, ThreadPoolExecutor(1, "writer")
        self._under_way: deque[Future[None]] = deque()
        self._begun, self._waited = time.monotonic(), 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._wait(0)
        finally:
            self._thread.shutdown(cancel_futures=True)

    def write(self, chunk: int, values: np.ndarray) -> None:
        """Queue a whole chunk for writing; `values` must not change afterwards.

        Raises:
            ArtifactError: this chunk or one before could not be written.
        """
        self._wait(1)
        self._under_way.append(self._thread.submit(self._store.write, chunk, values))

    def _wait(self, left: int) -> None:
        started = time.monotonic()
        while len(self._under_way) > left:
            self._under_way.popleft().result()
        self._waited += time.monotonic() - started

    @property
    def waiting(self) -> float:
        """Fraction of the time so far that the caller spent waiting for the disk."""
        return self._waited / max(time.monotonic() - self._begun, 1e-9)


def chunk_rows(n: int, dims: int, dtype: np.dtype) -> int:
    """Rows per chunk of a store of n rows."""
    return max(1, min(n, CHUNK_BYTES // (dims * dtype.itemsize)))


def open_features(manifest: Path, *, index: str | None = None) -> tuple[FeatureStore, FeaturesManifest]:
    """Open the store of a manifest; verify that it is complete and belongs to the index with this fingerprint.

    Raises:
        ArtifactError: missing, incomplete, or of other images.
    """
    content = read_manifest(manifest, FeaturesManifest)
    store = FeatureStore.open(manifest.parent / "work" / content.work / STORE)
    if index is not None and content.index != index:
        raise ArtifactError(
            f"{manifest}: these features belong to another index ({content.index[:8]}, not {index[:8]}); "
            "run the features stage again."
        )
    missing = store.missing()
    if missing or store.chunks != len(content.chunks):
        raise ArtifactError(
            f"{store.path}: {len(missing)} of {store.chunks} chunks are missing; remove {manifest} and "
            "run the features stage again: it computes the missing ones."
        )
    return store, content
