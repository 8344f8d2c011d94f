"""Killed at any moment, the stage resumes and ends with the same bytes."""

import json
import os
import subprocess
import sys

import numpy as np

from tests.helpers import HELPERS

DRIVER = HELPERS / "killed_cluster.py"


def test_cluster_resumes_with_equal_bytes_when_killed(make_features, tmp_path):
    features, _ = make_features(np.random.default_rng(0).normal(size=(600, 10)).astype(np.float32))
    ended = subprocess.run(
        [sys.executable, DRIVER, features, tmp_path / "cluster"],
        env={**os.environ, "SSLTRANSFER_CHECKPOINT_STEPS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    undisturbed, *plans = json.loads(ended.stdout.splitlines()[-1])
    assert undisturbed["statuses"] == [0]
    assert undisturbed["iterations"] == 5
    # 5 checkpoints, centroids, curve, run.json, manifest and done.json: a sync before each rename and one after.
    assert sum(plan["name"].startswith("sync") for plan in plans) == 20
    for plan in plans:
        killed, last = plan["statuses"][:-1], plan["statuses"][-1]
        assert killed == ([128 + 15] if plan["name"] == "told" else [-9] * len(killed)), plan
        assert last == 0, plan
        assert plan["bytes"] == undisturbed["bytes"], plan["name"]
    repeated = {plan["name"]: plan["iterations"] for plan in plans}
    # What was saved is not computed again, and no more than one iteration is lost.
    assert [repeated[f"sync{n}"] for n in range(1, 11)] == [5, 4, 4, 3, 3, 2, 2, 1, 1, 0]
    assert repeated["step4"] == 2
    assert repeated["told"] == 3
