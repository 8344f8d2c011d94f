"""The easel: where a split is drawn, out of sight, until all of it is there.

A split is drawn in root/.world/<split>.part and then renamed into place, lists last; root/.world/<split>.json says
with which parameters and is written after everything else. What is found at any moment of a kill is therefore
either nothing, or pictures that a note (<split>.hanging.json) declares to be this split's own and whose hanging
the next call finishes.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType

_CHUNK = 32
_SHARED = frozenset({"VOCdevkit", "JPEGImages", "Annotations", "ImageSets"})


class Easel:
    """One split being drawn, alone: a second process that wants the same split waits until the first is done.

    `folder` is where to draw, laid out as root is; `finished` says that there is nothing to do.
    """

    def __init__(self, root: Path, split: str, parameters: dict[str, str | int]) -> None:
        self.root, self.split, self.parameters = root, split, parameters
        self.notes = root / ".world"
        self.folder = self.notes / f"{split}.part"
        self.record, self.hanging = self.notes / f"{split}.json", self.notes / f"{split}.hanging.json"
        self.finished = False

    def __enter__(self) -> Easel:
        self.notes.mkdir(parents=True, exist_ok=True)
        self._lock = (self.notes / f"{self.split}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.finished = self._agrees(self.record)
            self.resumes = not self.finished and self._agrees(self.hanging)
            if not self.finished:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _agrees(self, note: Path) -> bool:
        """Say whether a note is there; a note with other parameters is an error."""
        if not note.exists():
            return False
        found = json.loads(note.read_text())
        if found != self.parameters:
            other = ", ".join(
                f"{k} {found.get(k)} instead of {v}" for k, v in self.parameters.items() if found.get(k) != v
            )
            raise ValueError(
                f"world: split {self.split!r} in {self.root} was drawn with other parameters ({other}); "
                "draw into another folder or remove this one."
            )
        return True

    def hang(self) -> None:
        """Move what was drawn into place and write the record."""
        if not self.resumes:
            self._refuse_strangers()
            _write(self.hanging, self.parameters)
        _move(self.folder, self.root)
        _write(self.record, self.parameters)
        self.hanging.unlink()

    def _refuse_strangers(self) -> None:
        kin = any(json.loads(note.read_text())["set"] == self.parameters["set"] for note in self.notes.glob("*.json"))
        for entry in sorted(self.folder.rglob("*")):
            place = self.root / entry.relative_to(self.folder)
            shared = kin and place.relative_to(self.root).parts[0] in _SHARED
            if place.exists() and not (shared and place.is_dir() and entry.is_dir()):
                raise ValueError(
                    f"world: {place} is there already and was not drawn as split {self.split!r}; "
                    "draw into another folder or remove it."
                )


def _move(source: Path, target: Path) -> None:
    """Rename the entries of one folder into another, whole folders where nothing is in the way, lists last."""
    for entry in sorted(source.iterdir(), key=lambda e: (e.name == "ImageSets" or e.suffix == ".txt", e.name)):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _move(entry, place)
        else:
            entry.replace(place)


def _write(note: Path, parameters: dict[str, str | int]) -> None:
    part = note.with_suffix(".tmp")
    part.write_text(json.dumps(parameters, sort_keys=True) + "\n")
    part.replace(note)


def draw_numbers(
    set_name: str, folder: Path, split: str, numbers: Sequence[int], size: int, seed: int, workers: int
) -> None:
    """Draw the pictures of these numbers into a folder, in this process or in `workers` fresh ones."""
    chunks = [numbers[start : start + _CHUNK] for start in range(0, len(numbers), _CHUNK)]
    if workers == 1 or len(chunks) == 1:
        _draw_chunk(set_name, folder, split, numbers, size, seed)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), context, initializer=_leave_with_parent) as pool:
        jobs = [pool.submit(_draw_chunk, set_name, folder, split, chunk, size, seed) for chunk in chunks]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _draw_chunk(set_name: str, folder: Path, split: str, numbers: Sequence[int], size: int, seed: int) -> None:
    write = import_module(f"toyworld.{set_name}").write
    for number in numbers:
        write(folder, split, number, size, seed)


def _leave_with_parent() -> None:
    """End this process when its parent is gone: a killed parent cannot tell its pool to stop."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
