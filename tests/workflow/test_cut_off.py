"""What is left, and what to type, after Snakemake was interrupted or killed while a network was trained."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.helpers.workflow import command, results, snakemake, tiny, write_config

pytestmark = pytest.mark.slow

CONFIG = tiny(**{"pretexts.puzzle.schedule.epochs": 10})
TARGET = ("--cores", "2", "--set-threads", "pretext=1", "--", "results/pretext/puzzle/manifest.json")
# A checkpoint every two steps of forty; loader processes, which a signal to the whole group reaches too.
ENVIRONMENT = {"SSLTRANSFER_CHECKPOINT_STEPS": "2", "SSLTRANSFER_WORKERS": "2"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_config(folder, CONFIG)
    run = snakemake(folder, *TARGET, **ENVIRONMENT)
    assert run.returncode == 0, run.stdout
    return folder


@contextmanager
def interrupted(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    """Snakemake in a process group of its own and the training that it runs, frozen after its first checkpoint."""
    write_config(folder, CONFIG)
    with (folder / "snakemake.out").open("wb") as out:
        main = subprocess.Popen(
            command(*TARGET),
            cwd=folder,
            env={**os.environ, **ENVIRONMENT},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    work = results(folder) / "pretext/puzzle/work"
    deadline = time.monotonic() + 200
    while not list(work.glob("*/checkpoint.pt")):
        assert main.poll() is None and time.monotonic() < deadline, (folder / "snakemake.out").read_text()
        time.sleep(0.02)
    (lock,) = work.glob("*/lock")
    trainer = psutil.Process(int(lock.read_text().split("process ")[1].split(",")[0]))
    trainer.suspend()
    try:
        yield main, trainer
    finally:
        for process in (main, trainer):
            if process.poll() is None if isinstance(process, subprocess.Popen) else process.is_running():
                process.kill()
        main.wait()


def content(folder: Path) -> dict[str, bytes]:
    model = results(folder) / "pretext/puzzle"
    return {name: (model / name).read_bytes() for name in ("manifest.json", "backbone.safetensors", "curve.jsonl")}


def test_ctrl_c_saves_and_rerun_resumes(tmp_path: Path, undisturbed: Path):
    log = tmp_path / "results/logs/pretext/puzzle.log"
    with interrupted(tmp_path) as (main, trainer):
        os.killpg(main.pid, signal.SIGINT)
        trainer.resume()
        main.wait(120)
        trainer.wait(120)
        assert "SIGINT: saved after step" in log.read_text()
    run = snakemake(tmp_path, *TARGET, **ENVIRONMENT)
    assert run.returncode == 0, run.stdout
    assert "resuming from step" in log.read_text()
    assert content(tmp_path) == content(undisturbed)


def test_killed_snakemake_leaves_one_job_at_most(tmp_path: Path, undisturbed: Path):
    with interrupted(tmp_path) as (main, trainer):
        main.kill()
        main.wait()

        locked = snakemake(tmp_path, *TARGET)
        assert locked.returncode == 1
        assert "--unlock" in locked.stdout.splitlines()[-1]

        assert snakemake(tmp_path, "--unlock").returncode == 0
        second = snakemake(tmp_path, *TARGET, **ENVIRONMENT)
        assert second.returncode == 1
        (refusal,) = [line for line in second.stdout.splitlines() if line.startswith("ssltransfer pretext:")]
        assert f"another copy of this job is running (host {os.uname().nodename}, process {trainer.pid})" in refusal
        assert "Traceback" not in second.stdout

        trainer.resume()
        trainer.wait(120)
    run = snakemake(tmp_path, *TARGET, **ENVIRONMENT)
    assert run.returncode == 0, run.stdout
    assert content(tmp_path) == content(undisturbed)
