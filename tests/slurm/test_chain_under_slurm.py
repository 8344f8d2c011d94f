"""The small chain through a real Slurm: one training is cancelled, one meets its time limit, the result is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.helpers.slurm_cluster import cluster, job_of, order, said_of, slurm_profile, why_not
from tests.helpers.workflow import command, compared, results, snakemake, tiny, write_config

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(why_not() is not None, reason=f"no Slurm: {why_not()}"),
]

CONFIG = tiny(
    **{
        "pretexts.puzzle.schedule.epochs": 20,
        "pretexts.turns": {
            "task": {"name": "rotation", "hidden_dim": 32},
            "backbone": tiny()["pretexts"]["puzzle"]["backbone"],
            "data": "objects-train",
            "schedule": {"epochs": 20, "batch_size": 16, "lr": 0.01},
        },
    }
)
STAGES = ("index", "pretext", "features", "cluster", "label", "student", "evaluate")
# The number of threads decides the order of floating-point sums: it is the same here and there.
THREADS = ["--set-threads", *(f"{stage}=1" for stage in STAGES)]
# A checkpoint every two steps, so that half-way is soon; no GPU even where there is one.
ENVIRONMENT = {"SSLTRANSFER_CHECKPOINT_STEPS": "2", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """The chain on its way through Slurm; a call waits for its end and returns what Snakemake said."""
    write_config(tmp_path, CONFIG)
    said = tmp_path / "snakemake.out"
    with cluster(tmp_path / "slurm"), said.open("wb") as out:
        process = subprocess.Popen(
            command("--workflow-profile", str(slurm_profile(tmp_path, index={"gpu": 1, "slurm_partition": "gpu"}))),
            cwd=tmp_path,
            env={**os.environ, **ENVIRONMENT},
            stdout=out,
            stderr=subprocess.STDOUT,
        )

        def end() -> str:
            code = process.wait(900)
            assert code == 0, said.read_text()
            return said.read_text()

        try:
            yield end
        finally:
            process.kill()
            process.wait()


def half_way(folder: Path, pretexts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Freeze each training after its first checkpoint, so that it is half-way on any machine; yields its Slurm job."""
    waiting = set(pretexts)
    deadline = time.monotonic() + 400
    while waiting:
        assert time.monotonic() < deadline, f"{waiting} never began: {(folder / 'snakemake.out').read_text()}"
        time.sleep(0.05)
        for pretext in sorted(waiting):
            work = results(folder) / "pretext" / pretext / "work"
            if list(work.glob("*/checkpoint.pt")):
                (lock,) = work.glob("*/lock")
                os.kill(int(lock.read_text().split("process ")[1].split(",")[0]), signal.SIGSTOP)
                job = job_of(f"pretext_wildcards_{pretext}")
                assert job is not None
                yield pretext, job
                waiting.remove(pretext)


def state_of(job: str) -> str:
    return said_of(job).split("JobState=")[1].split()[0]


def test_slurm_chain_resumes_after_cancel_and_timeout(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, running: Callable[[], str]
):
    jobs: dict[str, str] = {}
    for pretext, job in half_way(tmp_path, ("puzzle", "turns")):
        jobs[pretext] = job
        if pretext == "puzzle":
            order("scancel", job)
        else:
            order("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    running()
    assert state_of(jobs["puzzle"]) == "CANCELLED"
    assert state_of(jobs["turns"]) == "TIMEOUT"
    for pretext in ("puzzle", "turns"):
        log = (results(tmp_path) / f"logs/pretext/{pretext}.log").read_text()
        assert "resuming from step" in log

    # The profile's gpu reaches Slurm, and 0 of it asks for none.
    index = job_of("index_wildcards_objects-train", "COMPLETED")
    assert index is not None
    assert "gres:gpu:1" in said_of(index)
    assert "gres:gpu" not in said_of(jobs["puzzle"])

    undisturbed = tmp_path_factory.mktemp("undisturbed")
    write_config(undisturbed, CONFIG)
    run = snakemake(undisturbed, "--cores", "2", *THREADS, **ENVIRONMENT)
    assert run.returncode == 0, run.stdout
    assert compared(tmp_path) == compared(undisturbed)
