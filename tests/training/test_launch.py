"""A command on two devices that are processes of a CPU: kills, signals, errors, and processes started by others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ssltransfer.artifacts.files import file_digest
from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.entities import Student
from ssltransfer.config.methods import ClusterClassification
from ssltransfer.config.schedule import Schedule

BACKBONE = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2)


def command(
    data: Path, labels: Path, output: Path, *, steps: int = 4, batch_size: int = 8, devices: int = 2
) -> list[str]:
    schedule = Schedule(steps=steps, batch_size=batch_size, lr=0.01)
    spec = Student(method=ClusterClassification(cluster="k3"), data="objects", backbone=BACKBONE, schedule=schedule)
    given = {"--spec": spec.canonical(), "--data": data, "--labels": labels, "--output": output}
    words = [str(word) for pair in given.items() for word in pair]
    return [sys.executable, "-m", "ssltransfer.cli", "student", *words, "--threads", "2", "--devices", str(devices)]


def start(words: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "SSLTRANSFER_CHECKPOINT_STEPS": "2"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def bytes_of(folder: Path) -> dict[str, str]:
    return {name: file_digest(folder / name) for name in ("manifest.json", "backbone.safetensors", "curve.jsonl")}


def wait_for_checkpoint(folder: Path, *, after: float) -> float:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        times = [file.stat().st_mtime for file in folder.glob("work/*/checkpoint.pt")]
        if times and times[0] > after:
            return times[0]
        time.sleep(0.01)
    raise AssertionError("no checkpoint was written")


@pytest.mark.slow
def test_launched_job_resumes_with_the_same_bytes(objects_path: Path, labels_path: Path, tmp_path: Path):
    """SIGKILL to all, SIGKILL to the launcher alone, SIGTERM to one of the processes, SIGUSR1 to the launcher."""
    steps = 60
    whole, broken = tmp_path / "whole" / "manifest.json", tmp_path / "broken" / "manifest.json"
    subprocess.run(command(objects_path, labels_path, whole, steps=steps), check=True, capture_output=True)
    last = 0.0
    for kill in ("all", "launcher", "one", "usr1"):
        process = start(command(objects_path, labels_path, broken, steps=steps))
        last = wait_for_checkpoint(broken.parent, after=last)
        ranks = psutil.Process(process.pid).children()
        assert len(ranks) == 2
        if kill == "one":
            ranks[1].send_signal(signal.SIGTERM)
        elif kill == "usr1":
            process.send_signal(signal.SIGUSR1)
        else:
            for victim in [process, *(ranks if kill == "all" else [])]:
                victim.kill()
        said, errors = process.communicate(timeout=120)
        psutil.wait_procs(ranks, timeout=60)
        assert not any(rank.is_running() for rank in ranks)
        assert process.returncode == {"all": -9, "launcher": -9, "one": 143, "usr1": 128 + signal.SIGUSR1}[kill]
        if kill != "all":
            assert said.count(": saved after step") == 1, errors
            assert kill == "launcher" or errors == ""
        last = max(file.stat().st_mtime for file in broken.parent.glob("work/*/checkpoint.pt"))
    process = start(command(objects_path, labels_path, broken, steps=steps))
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert said.count("resuming from step") == 1 and "2 processes" in said
    assert bytes_of(broken.parent) == bytes_of(whole.parent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 6}, "A batch of 6 images cannot be divided"),
        ({"labels": "nowhere"}, "nowhere: missing"),
    ],
)
def test_launched_job_prints_an_error_once(
    change: dict, said: str, objects_path: Path, labels_path: Path, tmp_path: Path
):
    given = {"data": objects_path, "labels": labels_path, "output": tmp_path / "s" / "manifest.json"} | change
    run = subprocess.run(command(**given), capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert run.stderr.startswith("ssltransfer student: ") and said in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_launched_job_ends_when_one_process_fails(objects: Index, labels_path: Path, tmp_path: Path):
    """One process meets a missing image; the other only loses its peer."""
    import pyarrow.parquet

    from ssltransfer.config.formats import Synthetic
    from ssltransfer.stages import index as index_stage

    folder = tmp_path / "own"
    spec = Synthetic(root=str(folder / "world"), subset="objects", split="train", num_images=48, size=64)
    index_stage.run(spec, output=folder / "i.parquet", threads=1)
    assert pyarrow.parquet.read_metadata(folder / "i.parquet").num_rows == 48
    victim = sorted((folder / "world").rglob("*.jp*g"))[20]
    victim.unlink()
    output = tmp_path / "s" / "manifest.json"
    run = subprocess.run(
        command(folder / "i.parquet", labels_path, output, steps=12), capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 1
    assert victim.name in run.stderr and "no longer is" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (3, "3 devices cannot be divided equally among 2 nodes; change --devices (the resource gpu) or --nodes"),
        (4, "2 nodes were requested outside a Slurm job; without Slurm use torchrun on each node."),
    ],
)
def test_several_nodes_that_cannot_be_used(
    devices: int, said: str, objects_path: Path, labels_path: Path, tmp_path: Path
):
    words = [*command(objects_path, labels_path, tmp_path / "s" / "manifest.json", devices=devices), "--nodes", "2"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    run = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.startswith(f"ssltransfer student: {said}")
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
@pytest.mark.parametrize("by", ["torchrun", "srun"])
def test_launch_joins_processes_of_torchrun_and_srun(by: str, objects_path: Path, labels_path: Path, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    running = []
    for rank in range(2):
        slurm = {"SLURM_PROCID": rank, "SLURM_STEP_NUM_TASKS": 2, "SLURM_LOCALID": rank, "SLURM_JOB_ID": 1}
        given = slurm if by == "srun" else {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank}
        place = {name: str(value) for name, value in given.items()}
        environment = {**os.environ, **place, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        words = command(objects_path, labels_path, tmp_path / "s" / "manifest.json", devices=1)
        running.append(
            subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert "2 processes" in said[0] and said[1] == ""
    assert (tmp_path / "s" / "manifest.json").is_file()


def test_launch_runs_other_stages_in_the_first_process_only(tmp_path: Path):
    words = ["index", "--spec", '{"format":"folder","root":"nowhere"}', "--output", str(tmp_path / "i.parquet")]
    codes = []
    for rank in "10":
        environment = {**os.environ, "RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank}
        run = subprocess.run([sys.executable, "-m", "ssltransfer.cli", *words], env=environment, capture_output=True)
        codes.append(run.returncode)
    assert codes == [0, 1]  # the first one finds no folder, the other one does not look
