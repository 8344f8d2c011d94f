"""Writing a split: all or nothing, by several processes, with one random generator per image."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
from filelock import FileLock

from toyworld.subsets import SUBSETS

Parameters = dict[str, str | int]
_CHUNK = 32
_SHARED = frozenset({"VOCdevkit", "JPEGImages", "Annotations", "ImageSets"})  # folders with files of several splits


def make_rng(seed: int, *key: str | int) -> np.random.Generator:
    """Return a random generator that depends on the seed and the key alone."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.default_rng([seed, *words])


@contextmanager
def split_writer(root: Path, split: str, parameters: Parameters) -> Iterator[Path | None]:
    """Yield a folder to write to, laid out like `root`, and move its contents to `root` at the end.

    Yields None if the split is complete. The folder is root/.toyworld/<split>.part. Two records in root/.toyworld make
    publishing safe against a kill: <split>.publishing.json is written before the first file moves, so that the next
    call recognizes files in `root` as its own, and <split>.json after the last one. A lock serializes processes that
    write the same split.

    Raises:
        ValueError: the split exists with other parameters, or files of another origin are in its place.
    """
    notes = root / ".toyworld"
    notes.mkdir(parents=True, exist_ok=True)
    folder, record, publishing = (notes / f"{split}.{end}" for end in ("part", "json", "publishing.json"))
    with FileLock(notes / f"{split}.lock"):
        if _matches(record, root, parameters):
            yield None
            return
        resuming = _matches(publishing, root, parameters)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
            if not resuming:
                _check_no_conflict(folder, root, parameters)
                _write(publishing, parameters)
            _move(folder, root)
            _write(record, parameters)
            publishing.unlink()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _matches(record: Path, root: Path, parameters: Parameters) -> bool:
    """Return whether a record exists; one with other parameters is an error."""
    if not record.exists():
        return False
    found = json.loads(record.read_text())
    if found != parameters:
        other = ", ".join(f"{k} {found.get(k)} instead of {v}" for k, v in parameters.items() if found.get(k) != v)
        raise ValueError(
            f"toyworld: split {parameters['split']!r} in {root} was generated with other parameters ({other}); "
            "use another folder or remove this one."
        )
    return True


def _check_no_conflict(folder: Path, root: Path, parameters: Parameters) -> None:
    records = [json.loads(record.read_text()) for record in (root / ".toyworld").glob("*.json")]
    has_siblings = any(record["subset"] == parameters["subset"] for record in records)
    for entry in sorted(folder.rglob("*")):
        target = root / entry.relative_to(folder)
        shared = has_siblings and entry.relative_to(folder).parts[0] in _SHARED
        if target.exists() and not (shared and target.is_dir() and entry.is_dir()):
            raise ValueError(
                f"toyworld: {target} exists and does not belong to split {parameters['split']!r}; "
                "use another folder or remove it."
            )


def _move(source: Path, target: Path) -> None:
    """Move the entries of one folder into another, whole folders where possible, lists of images last."""
    for entry in sorted(source.iterdir(), key=lambda e: (e.name == "ImageSets" or e.suffix == ".txt", e.name)):
        destination = target / entry.name
        if entry.is_dir() and destination.is_dir():
            _move(entry, destination)
        else:
            entry.replace(destination)


def _write(record: Path, parameters: Parameters) -> None:
    part = record.with_suffix(".tmp")
    part.write_text(json.dumps(parameters, sort_keys=True) + "\n")
    part.replace(record)


def write_numbers(
    subset: str, folder: Path, split: str, numbers: Sequence[int], size: int, seed: int, workers: int
) -> None:
    """Write the images of these numbers into a folder, in this process or in `workers` spawned ones."""
    chunks = [numbers[start : start + _CHUNK] for start in range(0, len(numbers), _CHUNK)]
    if workers == 1 or len(chunks) == 1:
        _write_chunk(subset, folder, split, numbers, size, seed)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), context, initializer=_exit_with_parent) as pool:
        jobs = [pool.submit(_write_chunk, subset, folder, split, chunk, size, seed) for chunk in chunks]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_chunk(subset: str, folder: Path, split: str, numbers: Sequence[int], size: int, seed: int) -> None:
    for number in numbers:
        SUBSETS[subset].write(folder, split, number, size, make_rng(seed, subset, split, number))


def _exit_with_parent() -> None:
    """End this process when its parent ends: a killed parent cannot shut its pool down."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
