"""Claims with real processes; the GPUs are names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssltransfer.training.gpu_lock import DeviceError, acquire_gpus, set_visible_gpus

CODE = (
    "import sys; from pathlib import Path; from ssltransfer.logs import configure_logging\n"
    "from ssltransfer.training.gpu_lock import acquire_gpus; configure_logging()\n"
    "print(*acquire_gpus(sys.argv[3].split(','), int(sys.argv[2]), Path(sys.argv[1])), flush=True); sys.stdin.read()"
)


class Job:
    """A process that acquires GPUs, prints their ids and holds them until its standard input ends."""

    def __init__(self, folder: Path, count: int, ids: str = "0,1"):
        words = [sys.executable, "-c", CODE, str(folder), str(count), ids]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def jobs(tmp_path: Path):
    started: list[Job] = []

    def start(count: int, ids: str = "0,1") -> Job:
        started.append(Job(tmp_path / "locks", count, ids))
        return started[-1]

    yield start
    for job in started:
        job.kill()


def test_gpu_lock_gives_each_job_its_own_gpu(jobs):
    pair = [jobs(1), jobs(1)]
    assert {job.says() for job in pair} == {"0", "1"}


def test_gpu_lock_waits_and_frees_gpu_of_killed_job(jobs):
    first = jobs(1)
    second = jobs(1)
    had = {first: first.says(), second: second.says()}
    late = jobs(1)
    assert late.says() == "Waiting for 1 of 2 GPUs: your other jobs use them."
    second.kill()
    assert late.says() == had[second]


def test_gpu_lock_serves_job_that_needs_all_gpus(jobs):
    small = jobs(1, "0,1,2")
    assert small.says() == "0"
    large = jobs(3, "0,1,2")
    assert large.says().startswith("Waiting for 3 of 3 GPUs")
    later = jobs(1, "0,1,2")
    assert later.says().startswith("Waiting for 1 of 3 GPUs")
    small.kill()
    assert large.says() == "0 1 2"
    large.kill()
    assert later.says() in {"0", "1", "2"}  # the kernel frees what a killed process held one after the other


def test_gpu_lock_does_not_deadlock(jobs):
    pair = [jobs(2), jobs(2)]
    said = {job.says(): job for job in pair}
    assert sorted(said) == ["0 1", "Waiting for 2 of 2 GPUs: your other jobs use them."]
    said.pop("0 1").kill()
    assert [job.says() for job in said.values()] == ["0 1"]


def test_gpu_lock_rejects_more_gpus_than_exist(tmp_path: Path):
    with pytest.raises(DeviceError, match="3 GPUs were requested, but this machine has 2"):
        acquire_gpus(["0", "1"], 3, tmp_path)


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID"])
def test_set_visible_gpus_keeps_the_choice_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv(name, "7")
    monkeypatch.setattr("torch.cuda.device_count", lambda: pytest.fail("GPUs were counted"))
    set_visible_gpus(1)


VISIBLE = (
    "import os, sys; from ssltransfer.training.gpu_lock import set_visible_gpus\n"
    "set_visible_gpus(int(sys.argv[1])); print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"
)


@pytest.mark.parametrize("slurm", [{}, {"SLURM_JOB_ID": "7"}])
def test_set_visible_gpus_divides_those_that_the_environment_names(slurm: dict[str, str], tmp_path: Path):
    """Four jobs of one allocation, or behind one variable, would otherwise all use the first GPU."""
    named = "GPU-5a,MIG-GPU-5b/1/0,3"
    environment = {**os.environ, **slurm, "CUDA_VISIBLE_DEVICES": named, "TMPDIR": str(tmp_path)}
    words = [sys.executable, "-c", VISIBLE]
    pipe = subprocess.PIPE
    jobs = [subprocess.Popen([*words, "1"], env=environment, text=True, stdin=pipe, stdout=pipe) for _ in range(3)]
    seen = [job.stdout.readline().strip() for job in jobs if job.stdout]
    whole = subprocess.run([*words, "3"], env=environment, input="", capture_output=True, text=True)
    for job in jobs:
        job.communicate()
    assert sorted(seen) == ["3", "GPU-5a", "MIG-GPU-5b/1/0"]
    assert whole.stdout.strip() == named, "all of them are used as they are, without locks"
    assert [folder.name.endswith("-7") for folder in tmp_path.glob("ssltransfer-*")] == [bool(slurm)]
