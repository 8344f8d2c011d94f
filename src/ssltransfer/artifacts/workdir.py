"""Work directory of a heavy stage: keeps its state for resuming, and a lock against a second copy of the job.

Snakemake sees only the manifest, which is written last. Checkpoints, stores and curves are in `work/<key>/` next to
it, keyed by the spec and the content of the inputs: a changed spec never finds an old checkpoint, an unchanged one
always does. An output that shares its folder with others (metrics of several models) has its own `work/<stem>/<key>/`
and `<stem>.run.json`.
"""

import fcntl
import json
import os
import platform
import resource
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, Self

from ssltransfer import __version__
from ssltransfer.artifacts.files import (
    UNSUPPORTED,
    ArtifactError,
    file_digest,
    friendly_os_errors,
    read_json,
    text_digest,
    write_json,
    write_text,
)
from ssltransfer.logs import logger

MANIFEST = "manifest.json"
DONE = "done.json"
InputFiles = Mapping[str, Path | Sequence[Path] | None]


class WorkDir:
    """One run of a stage: lock, work directory, and finally the manifest.

    A context manager; a second copy of the same job fails immediately. In a distributed job (RANK in the environment)
    the first process holds the lock and writes; the others only get the folder.

    Args:
        spec: canonical text of the spec.
        inputs: role -> input files; their content is part of the key.
        shard: "3-of-8" for the third of eight jobs that share the folder and the work; they write no manifest.

    Attributes:
        folder: created when the block is entered; its path is a function of output and key.
    """

    def __init__(self, stage: str, output: Path, spec: str, inputs: InputFiles, *, shard: str = ""):
        self.stage, self.output, self.spec, self.shard = stage, output, spec, shard
        files = {role: [paths] if isinstance(paths, Path) else paths for role, paths in inputs.items()}
        self.inputs = {role: [self._digest(path) for path in paths] for role, paths in files.items() if paths}
        self.key = text_digest(stage, spec, json.dumps(self.inputs, sort_keys=True))
        alone = output.name == MANIFEST
        self.folder = output.parent.joinpath("work", *([] if alone else [output.stem]), self.key)
        self._first = os.environ.get("RANK", "0") == "0"
        self._locks: list[IO[str]] = []
        self._started = time.monotonic()

    @staticmethod
    def _digest(path: Path) -> str:
        if not path.is_file():
            raise ArtifactError(f"{path}: missing; run the stage that writes it.")
        return file_digest(path)

    def __enter__(self) -> Self:
        with friendly_os_errors(self.output):
            self.folder.mkdir(parents=True, exist_ok=True)
        if not self._first:
            return self
        if self.shard:
            self._lock_part()
        else:
            self._lock("lock", fcntl.LOCK_EX)
            for leftover in self.folder.glob(".*.partial"):
                leftover.unlink()
        return self

    def _lock_part(self) -> None:
        """Shards of one division can run together, but not with the whole job, the same shard or another division."""
        self._lock("lock", fcntl.LOCK_SH)
        self._lock(f"{self.shard}.lock", fcntl.LOCK_EX)
        _, _, division = self.shard.partition("-")
        for other in self.folder.glob("*-of-*.lock"):
            if not other.name.endswith(f"-{division}.lock"):
                self._lock(other.name, fcntl.LOCK_SH)

    def _lock(self, name: str, how: int) -> None:
        file = (self.folder / name).open("a+")
        self._locks.append(file)
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                logger.warning(
                    f"{self.output}: this file system has no locks, so a second copy of this job is not refused; mount "
                    "it with flock (Lustre), or choose another results folder."
                )
                return
            if not isinstance(error, BlockingIOError):
                raise
            file.seek(0)
            holder = file.read().strip() or "unknown"
            self.__exit__()
            raise ArtifactError(
                f"{self.output}: another copy of this job is running ({holder}); wait for it or stop it, "
                "then run the same command again: its work is kept."
            ) from None
        file.truncate(0)
        file.write(f"host {socket.gethostname()}, process {os.getpid()}{_slurm_job()}")
        file.flush()

    def __exit__(self, *error: object) -> None:
        for file in self._locks:
            file.close()

    def finish(self, content: dict[str, Any], *, files: Sequence[str] = (), **measured: Any) -> None:
        """Write run.json (information that varies between equal runs), then the manifest (the rest).

        `files` are the names of the other outputs next to the manifest.
        """
        self.write_run_info(**measured)
        manifest = {"stage": self.stage, "spec": json.loads(self.spec), "inputs": self.inputs, "work": self.key}
        write_json(self.output, manifest | content)
        self.mark_done(files)

    def mark_done(self, files: Sequence[str] = ()) -> None:
        """Record the output, so that a later copy of this job has nothing to do."""
        made = {name: file_digest(self.output.parent / name) for name in files}
        write_json(self.folder / DONE, {"code": _code(), "output": self.output.read_text("utf-8"), "files": made})

    def is_cached(self) -> bool:
        """Whether this job was completed before, by this code, and all its outputs still exist.

        Snakemake removes the output of a job that outlived it, because it cannot tell whether the job succeeded, and of
        a job whose rerun is forced. In both cases the output is written again without computing. Changed code does
        compute: that is the purpose of forcing a rerun.
        """
        done = read_json(self.folder / DONE) if (self.folder / DONE).is_file() else None
        if done is None or done["code"] != _code():
            return False
        beside = {self.output.parent / name: digest for name, digest in done["files"].items()}
        if not all(path.is_file() and file_digest(path) == digest for path, digest in beside.items()):
            return False
        if self._first:
            write_text(self.output, done["output"])
        logger.info(f"{self.output}: made before by the same code from the same inputs; nothing to do.")
        return True

    def write_run_info(self, **measured: Any) -> None:
        """Write only run.json, for a stage that writes an output other than a manifest next.

        For a shard it is `<shard>.run.json` in the work directory.
        """
        output = self.folder / f"{self.shard}.json" if self.shard else self.output
        write_run_info(output, self._started, work=self.key, **measured)


def write_run_info(output: Path, started: float, **measured: Any) -> None:
    """Write the information that varies between equal runs next to an output; `started` is in time.monotonic()."""
    seconds = round(time.monotonic() - started, 2)
    run = {"seconds": seconds, "peak_memory_mb": peak_memory_mb(), **environment(), **measured}
    write_json(run_info_file(output), run)


def run_info_file(output: Path) -> Path:
    """run.json next to a manifest, <stem>.run.json next to any other output."""
    return output.with_name("run.json" if output.name == MANIFEST else f"{output.stem}.run.json")


@cache
def _code() -> str:
    """Digest of the source code of this package."""
    package = Path(__file__).parents[1]
    return text_digest(*(path.read_text("utf-8") for path in sorted(package.rglob("*.py"))))


def _slurm_job() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    return f", Slurm job {job}" if job else ""


def peak_memory_mb() -> int:
    """Largest resident memory of this process and of any finished child so far, in MB."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return int(max(own, child) * unit >> 20)


def environment() -> dict[str, str]:
    """Versions and host, for run.json and the report."""
    versions = {}
    for name in ("torch", "torchvision", "numpy", "zarr", "snakemake"):
        with suppress(PackageNotFoundError):  # the environment of a node may lack Snakemake
            versions[name] = version(name)
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "ssltransfer": __version__,
        **versions,
    }


def clean(results: Path) -> list[Path]:
    """Remove obsolete work directories, those of results that were made in another one; returns the removed ones.

    Keeps directories that are locked or whose result does not exist yet.
    """
    removed = []
    for file in sorted([*results.glob("*/**/work/*/lock"), *results.glob("*/**/work/*/*/lock")]):
        folder = file.parent
        if _current(folder) in (None, folder.name):
            continue
        with file.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                raise ArtifactError(
                    f"{folder}: this file system has no locks, so a running job cannot be recognized; remove old work "
                    "directories by hand."
                ) from None
            shutil.rmtree(folder)
            removed.append(folder)
    return removed


def _current(folder: Path) -> str | None:
    """Key of the work directory of the current result next to `folder`; None without a result."""
    if folder.parent.name == "work":
        source = output = folder.parent.parent / MANIFEST
    else:
        beside = folder.parent.parent.parent
        named = (beside / f"{folder.parent.name}{suffix}" for suffix in (".json", ".parquet"))
        output = next(filter(Path.is_file, named), beside / f"{folder.parent.name}.json")
        source = run_info_file(output)
    if not output.is_file() or not source.is_file():
        return None
    key: str | None = read_json(source).get("work")
    return key
