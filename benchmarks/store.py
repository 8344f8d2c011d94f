"""The feature store against one memory-mapped file of the same matrix, on the same disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness.measure import OURS, Comparison, Contender, Setting, interleave
from benchmarks.harness.upper_bounds import copy
from ssltransfer.artifacts.features import CHUNK_BYTES, FeatureStore

DIMS = 9600
GOAL = 0.8
MEMMAP, COPY = "np.memmap", "copy in memory"


def run(setting: Setting) -> Iterator[Comparison]:
    """float16; both write and sync a chunk at a time, both give back arrays of their own when they read."""
    # Whole chunks: zarr fills up the last one.
    n = setting.size(80, 6) * (CHUNK_BYTES // (2 * DIMS))
    folder = setting.folder
    store = FeatureStore.create(folder / "features.zarr", n, DIMS, "float16")
    block = np.random.default_rng(0).random((store.rows, DIMS), np.float32).astype(np.float16)
    spans = [store.span(chunk) for chunk in range(store.chunks)]
    mapped = Mapped(folder / "matrix.dat", n)
    what = f"{n} x {DIMS} float16, {n * DIMS * 2 / 1e6:.0f} MB in {len(spans)} chunks"
    shuffled = [spans[place] for place in np.random.default_rng(1).permutation(len(spans))]
    cache = "from the page cache"

    def compared(case: str, ours: Contender, theirs: Contender, before: Callable[[str], object]) -> Comparison:
        bare = copy(block)
        limit = _all([bare] * len(spans))
        contenders = {OURS: ours, MEMMAP: theirs, COPY: limit}
        samples = interleave(contenders, setting.rounds, before)
        goal = None if case.startswith("chunks in random order") else GOAL
        return Comparison(f"{case}; {what}", n * DIMS * 2 / 1e6, "MB", samples, {MEMMAP: goal}, (COPY,))

    def write() -> None:
        for chunk, span in enumerate(spans):
            store.write(chunk, block[: span.stop - span.start])
        store.flush()

    def write_mapped() -> None:
        for span in spans:
            mapped.write(span, block[: span.stop - span.start])

    def fresh(name: str) -> None:
        shutil.rmtree(store.path / "c", ignore_errors=True)
        mapped.path.unlink(missing_ok=True)

    yield compared("write, synced", write, write_mapped, fresh)
    write()
    write_mapped()
    for case, order, before in (
        (f"read in order, {cache}", spans, lambda name: None),
        ("read in order, from the disk", spans, lambda name: _forget(folder)),
        (f"chunks in random order, {cache}", shuffled, lambda name: None),
    ):
        ours = _all([partial(store.read, span) for span in order])
        theirs = _all([partial(mapped.read, span) for span in order])
        yield compared(case, ours, theirs, before)


class Mapped:
    """The same matrix as one file; it is opened again for each chunk, since mapped pages stay in the page cache."""

    def __init__(self, path: Path, n: int):
        self.path, self.n = path, n

    def write(self, span: slice, values: np.ndarray) -> None:
        """Rows onto the disk."""
        matrix = np.memmap(self.path, np.float16, "r+" if self.path.exists() else "w+", shape=(self.n, DIMS))
        matrix[span] = values
        matrix.flush()

    def read(self, span: slice) -> np.ndarray:
        """A copy of rows."""
        return np.array(np.memmap(self.path, np.float16, "r", shape=(self.n, DIMS))[span])


def _all(calls: Sequence[Callable[[], object]]) -> Contender:
    def call() -> None:
        for one in calls:
            one()

    return call


def _forget(folder: Path) -> None:
    """Ask the kernel to drop the files of a folder from its cache; where it does not, the case equals the warm one."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
