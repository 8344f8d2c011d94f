"""One training over two nodes of a real Slurm, each of which is a slurmd of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssltransfer.artifacts.files import file_digest
from tests.helpers.slurm_cluster import cluster, order, why_not

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(why_not() is not None, reason=f"no Slurm: {why_not()}"),
]

SPEC = (
    '{"task":{"name":"rotation","hidden_dim":32},"backbone":{"name":"resnet18","width_mult":0.125,"img_size":32},'
    '"data":"o","schedule":{"steps":60,"batch_size":16,"lr":0.01}}'
)
TASKS = ["srun", "--nodes=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "--mem=1000"]


def words(data: Path, output: Path, *more: str) -> list[str]:
    given = ["--spec", SPEC, "--data", str(data), "--output", str(output), "--threads", "1", *more]
    return [sys.executable, "-m", "ssltransfer.cli", "pretext", *given]


def test_srun_trains_on_two_nodes_and_resumes(objects_path: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SSLTRANSFER_CHECKPOINT_STEPS": "2", "SSLTRANSFER_WORKERS": "0"}
    outputs = [tmp_path / name / "m" / "manifest.json" for name in ("local", "nodes", "broken")]
    local, nodes, broken = outputs
    # Two processes on one machine.
    subprocess.run(words(objects_path, local, "--threads", "2", "--devices", "2"), check=True, env=environment)
    with cluster(tmp_path / "slurm", nodes=2):
        whole = subprocess.run([*TASKS, *words(objects_path, nodes)], env=environment, capture_output=True, text=True)
        assert whole.returncode == 0, whole.stderr + whole.stdout
        assert "2 processes" in whole.stdout

        step = subprocess.Popen([*TASKS, "--job-name=broken", *words(objects_path, broken)], env=environment)
        deadline = time.monotonic() + 120
        while not list(broken.parent.glob("work/*/checkpoint.pt")):
            assert step.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        order("scancel", "--name=broken", f"--signal={signal.SIGTERM.name}")
        assert step.wait(120), "the step was cancelled"
        again = subprocess.run([*TASKS, *words(objects_path, broken)], env=environment, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert "resuming from step" in again.stdout

        # A task that fails ends the others.
        wrong = [*TASKS, "bash", "-c", '[ "$SLURM_PROCID" = 0 ] || exit 3; exec "$0" "$@"']
        failed = subprocess.run(
            [*wrong, *words(objects_path, tmp_path / "f" / "m.json")], env=environment, timeout=120, capture_output=True
        )
        assert failed.returncode
    digests = {file_digest(output.parent / "backbone.safetensors") for output in outputs}
    assert len(digests) == 1
