"""One training over two nodes of a real Slurm, each of which is a slurmd of its own, by a rule and by hand."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssltransfer.artifacts.files import file_digest
from tests.helpers.slurm_cluster import cluster, job_of, order, said_of, slurm_profile, why_not
from tests.helpers.workflow import command, results, snakemake, tiny, write_config

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(why_not() is not None, reason=f"no Slurm: {why_not()}"),
]

CONFIG = tiny(**{"pretexts.puzzle.schedule.epochs": 20})
# As in docs/running.md, with two GPUs that are only device files on each of two nodes.
NODES = {"slurm_partition": "gpu", "gpu": 4, "nodes": 2, "mpi": "srun", "tasks_per_node": 2, "mem_mb": 3000}
ENVIRONMENT = {"SSLTRANSFER_CHECKPOINT_STEPS": "2", "SSLTRANSFER_WORKERS": "0"}
MODEL = "pretext/puzzle/manifest.json"


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[None]:
    with cluster(tmp_path / "slurm", nodes=2):
        yield


def test_rule_trains_on_two_nodes_and_resumes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, slurm: None):
    write_config(tmp_path, CONFIG)
    model = results(tmp_path) / MODEL
    words = command("--workflow-profile", str(slurm_profile(tmp_path, pretext=NODES)), f"results/{MODEL}")
    with subprocess.Popen(
        words, cwd=tmp_path, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as run:
        deadline = time.monotonic() + 300
        while not list(model.parent.glob("work/*/checkpoint.pt")):
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        job = job_of("pretext_wildcards_puzzle")
        assert job is not None
        order("scancel", job)
        said = run.communicate(timeout=400)[0].decode()
    assert run.returncode == 0, said
    log = (results(tmp_path) / "logs/pretext/puzzle.log").read_text()
    assert "resuming from step" in log and "4 processes" in log
    known = said_of(job)
    assert "JobState=CANCELLED" in known and "NumNodes=2" in known and "gres:gpu:4" in known

    one = tmp_path_factory.mktemp("one")
    write_config(one, CONFIG)
    local = [
        f"results/{MODEL}",
        "--cores",
        "4",
        "--resources",
        "gpu=4",
        "--set-resources",
        "pretext:gpu=4",
        "--set-threads",
        "pretext=4",
    ]
    whole = snakemake(one, *local, **ENVIRONMENT, CUDA_VISIBLE_DEVICES="")
    assert whole.returncode == 0, whole.stdout
    weights = {file_digest(folder / "pretext/puzzle/backbone.safetensors") for folder in map(results, (tmp_path, one))}
    assert len(weights) == 1


def test_command_by_hand_and_a_failed_task_that_ends_the_others(objects_path: Path, tmp_path: Path, slurm: None):
    spec = (
        '{"task":{"name":"rotation","hidden_dim":32},"backbone":{"name":"resnet18","width_mult":0.125,"img_size":32},'
        '"data":"o","schedule":{"steps":4,"batch_size":16,"lr":0.01}}'
    )
    output = tmp_path / "m" / "manifest.json"
    words = ["ssltransfer", "pretext", "--spec", spec, "--data", str(objects_path), "--threads", "1", "--output"]

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, timeout=120, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT})

    allocated = ["salloc", "--nodes=2", "--ntasks-per-node=1", "--mem=1000"]
    whole = run(*allocated, *words, str(output), "--devices", "2", "--nodes", "2")
    assert whole.returncode == 0 and output.exists(), whole.stderr
    assert "2 processes" in whole.stdout

    # The first process would wait for half an hour.
    tasks = ["srun", "--nodes=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "--mem=1000"]
    wrong = ["bash", "-c", '[ "$SLURM_PROCID" = 0 ] || exit 3; exec "$0" "$@"']
    failed = run(*tasks, *wrong, *words, str(tmp_path / "f" / "manifest.json"))
    assert failed.returncode and not (tmp_path / "f" / "manifest.json").exists()
