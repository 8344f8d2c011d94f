"""A student of two teachers by the workflow: both run before it, and reach it in the order of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssltransfer.artifacts.files import file_digest, read_json
from tests.helpers.workflow import snakemake, write_config

SMALL = {"name": "resnet18", "width_mult": 0.125, "img_size": 32, "stem_stride": 1}
CONFIG: dict[str, Any] = {
    "results": "results",
    "datasets": {"d": {"format": "synthetic", "subset": "objects", "split": "train", "num_images": 24, "size": 32}},
    "pretexts": {name: {"task": "random", "backbone": SMALL, "seed": seed} for seed, name in enumerate("zab")},
    "students": {
        "s": {
            "method": {
                "name": "feature-distillation",
                "teacher": "z",
                "further_teachers": [{"teacher": "b", "map_weight": 1}, {"teacher": "a"}],
            },
            "data": "d",
            "backbone": SMALL,
            "schedule": {"steps": 2, "batch_size": 8, "lr": 0.01},
        }
    },
}


@pytest.mark.slow
def test_workflow_trains_a_student_of_three_teachers(tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG)
    run = snakemake(tmp_path, "--cores", "1", "results/student/s/manifest.json")
    assert run.returncode == 0, run.stdout[-4000:]
    content = read_json(tmp_path / "results/student/s/manifest.json")
    digests = {name: file_digest(tmp_path / f"results/pretext/{name}/manifest.json") for name in "zab"}
    assert content["inputs"]["teacher"] == [digests["z"]]
    assert content["inputs"]["further_teachers"] == [digests["b"], digests["a"]]
    assert {"pooled_loss", "pooled2_loss", "map2_loss", "pooled3_loss"} <= content["summary"].keys()
