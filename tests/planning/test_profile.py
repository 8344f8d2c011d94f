"""Profiles with the memory and runtime of the estimate, as Snakemake reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from ssltransfer.cli import main
from ssltransfer.planning.costs import CostEstimate
from ssltransfer.planning.profile import memory_mb, runtime_minutes, write_profile
from tests.helpers.workflow import ROOT, snakemake, tiny, write_config

SLURM = ROOT / "workflow/profiles/slurm/config.yaml"
LOCAL = ROOT / "workflow/profiles/default/config.yaml"


def cost(stage: str, hours: float | None, memory: float | None) -> CostEstimate:
    return CostEstimate(stage, f"{stage} of {hours}", (), hours, None, memory)


def profile(costs: list[CostEstimate], folder: Path, *, local: bool = False) -> dict[str, Any]:
    file = write_profile(costs, LOCAL if local else SLURM, folder, local=local)
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    return content


def test_memory_and_runtime_are_of_the_largest_job() -> None:
    assert memory_mb([cost("cluster", 1, 10.0), cost("cluster", 1, 47.2)]) == 4000 + 95_000
    assert memory_mb([cost("student", 1, 8.0)]) == 4000 + 10_000
    assert memory_mb([cost("label", 1, None)]) is None
    assert runtime_minutes([cost("cluster", 1, None), cost("cluster", 3, None)]) == 20 + 360
    assert runtime_minutes([cost("cluster", 1, None), cost("cluster", None, None)]) is None
    assert runtime_minutes([cost("label", 0.0, None)]) is None


def test_slurm_profile_differs_from_shipped_one_only_in_estimated_values(tmp_path: Path) -> None:
    costs = [
        *(cost("index", 10.0, None), cost("pretext", 100.0, 80.0), cost("student", 1.0, 1.0)),
        *(cost("cluster", 2.0, 1.0), cost("features", 0.5, None), cost("label", 0.0, None)),
        *(cost("evaluate", 1.0, 1.0), cost("evaluate", None, None)),
    ]
    expected = yaml.safe_load(SLURM.read_text())
    resources = expected["set-resources"]
    resources["index"]["runtime"] = "1220 * attempt"  # starts again, so it needs the whole time
    resources["pretext"]["mem_mb"] = 104_000  # resumes, so its runtime is not more than shipped
    resources["student"]["runtime"] = 140  # its memory is not less than shipped
    resources["cluster"] |= {"mem_mb": 6000, "runtime": 260}
    resources["features"]["runtime"] = resources["features_shard"]["runtime"] = 80
    assert profile(costs, tmp_path / "mine") == expected
    assert "# SITE: a partition without GPUs" in (tmp_path / "mine/config.yaml").read_text()


def test_local_profile_limits_memory_to_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = [cost("cluster", 2.0, 10.0), cost("student", 1.0, 8.0), cost("label", 1.0, None)]
    shipped = yaml.safe_load(LOCAL.read_text())
    for gpu, trainings in ((False, {"student": {"mem_mb": 14_000}}), (True, {})):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        found = profile(costs, tmp_path / str(gpu), local=True)
        limit = psutil.virtual_memory().total // 10**6
        assert found.pop("resources") == {"gpu": 1, "mem_mb": limit}
        assert found.pop("set-resources") == {"cluster": {"mem_mb": 24_000}, **trainings}
        assert found.pop("cores") == "all"
        assert found == {key: value for key, value in shipped.items() if key != "resources"}


@pytest.mark.parametrize("local", [False, True])
def test_resources_of_profile_arrive_in_jobs(local: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, tiny())
    words = ["estimate", str(config), "--tflops", "1", "--profile", str(tmp_path / "mine"), *["--local"] * local]
    assert main(words) == 0
    assert capsys.readouterr().out.endswith(f"Next: ssltransfer run {config} --workflow-profile {tmp_path / 'mine'}\n")
    assert main(words) == 1 and "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    run = snakemake(tmp_path, "--dry-run", "--workflow-profile", "mine")
    assert run.returncode == 0, run.stdout
    resources = dict(re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)$", run.stdout, re.M))
    assert "mem_mb=5000," in resources["cluster"]
    assert ("runtime=21" in resources["cluster"]) is not local


def test_local_without_profile_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "config.yaml", "--local"]) == 1
    assert "need --profile" in capsys.readouterr().err
