"""Runs the cluster stage in child processes that are killed at each of its writes; started by test_kill.py.

One process imports torch and forks before it computes: a kill then costs a tenth of a second, not three.
Prints one JSON line: the outcome of each plan.
"""

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch

from ssltransfer.artifacts import files
from ssltransfer.config.entities import Cluster
from ssltransfer.kmeans import update
from ssltransfer.logs import configure_logging
from ssltransfer.stages import cluster
from ssltransfer.training.checkpoint import Checkpoint

FEATURES, RESULTS = Path(sys.argv[1]), Path(sys.argv[2])
SPEC = Cluster(features="f", data="d", k=12, max_iter=5, tolerance=0.0, init="k-means++")


def dies_at_sync(n):
    """SIGKILL at the n-th sync: odd ones before a rename, even ones after it."""
    real, count = os.fsync, iter(range(1, 10_000))

    def fsync(handle):
        if next(count) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    os.fsync = fsync


def dies_in_save(n):
    """SIGKILL with half of the n-th checkpoint written."""
    real, count = torch.save, iter(range(1, 10_000))

    def save(state, path):
        real(state, path)
        if next(count) == n:
            os.truncate(path, Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save  # type: ignore[assignment]


def dies_in_step(n, number=signal.SIGKILL):
    """A signal while the n-th iteration of this process computes."""
    real, count = update.TorchStep.__call__, iter(range(1, 10_000))

    def step(self, centroids):
        stats = real(self, centroids)
        if next(count) == n:
            os.kill(os.getpid(), number)
        return stats

    update.TorchStep.__call__ = step  # type: ignore[method-assign]


def child(name, prepare, log):
    """Exit status of one run of the stage: 0, 128 + signal, or -signal if killed by it."""
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            prepare()
            cluster.run(SPEC, features=FEATURES, output=RESULTS / name / "manifest.json", threads=1)
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            status = 1
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def outcome(name, *preparations):
    """Runs one after the other in one folder, and at last one undisturbed."""
    log = RESULTS / f"{name}.log"
    statuses = [child(name, prepare, log) for prepare in (*preparations, lambda: None)]
    folder = RESULTS / name
    return {
        "name": name,
        "statuses": statuses,
        "bytes": {file: files.file_digest(folder / file) for file in ("manifest.json", "centroids.npy", "curve.jsonl")},
        "iterations": log.read_text().count(": iteration "),
        "leftovers": sorted(path.name for path in folder.rglob(".*.partial")),
    }


def main():
    """All plans."""
    assert Checkpoint(Path("x")).due(1), "set SSLTRANSFER_CHECKPOINT_STEPS=1"
    configure_logging()
    RESULTS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    plans = [outcome("undisturbed")]
    n = 1
    while (plan := outcome(f"sync{n}", partial(dies_at_sync, n)))["statuses"][0] == -signal.SIGKILL:
        plans.append(plan)
        n += 1
    plans += [outcome(f"save{n}", partial(dies_in_save, n)) for n in (1, 3)]
    plans += [outcome(f"step{n}", partial(dies_in_step, n)) for n in (1, 4)]
    plans.append(outcome("thrice", partial(dies_at_sync, 3), partial(dies_in_save, 1), partial(dies_in_step, 2)))
    plans.append(outcome("told", partial(dies_in_step, 2, signal.SIGTERM)))
    print(json.dumps(plans))
    print(f"{len(plans)} plans in {time.monotonic() - began:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
