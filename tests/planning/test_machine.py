"""Rates of a machine, from results of the benchmarks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.formats import CacheOptions, ImageFolder
from ssltransfer.planning.machine import CORE_TFLOPS, Machine, measured, this_machine

ABOUT = {"sizes": "full", "processor": "A", "GPU": "none", "cores": 4, "date": "2026-01-01"}


def results(file: Path, about: dict[str, object], **paces: tuple[str, float]) -> Path:
    named = {name.replace("_", "/"): pace for name, pace in paces.items()}
    row = [{"samples": {"ours": [1.0, 3.0, 2.0], "bare": [0.5, 0.5, 9.0]}, "paces": named}, {"why": "no GPU"}]
    file.write_text(json.dumps({"machine": about, "results": {"row": row}}))
    return file


def test_measured_rate_is_the_amount_over_the_median(tmp_path: Path) -> None:
    found = measured(
        results(
            tmp_path / "r.json",
            ABOUT,
            decoding_files=("ours", 100.0),
            forward_vgg16=("bare", 4e12),
            products=("ours", 2e12),
        )
    )
    assert found.paces == {"decoding/files": 50.0, "forward/vgg16": 8e12, "products": 1e12}
    assert found.cores == 4 and measured(tmp_path / "r.json", 2).cores == 2
    assert found.rate("forward", "vgg16") == found.rate("forward", "unknown") == 8e12
    assert found.rate("training", "vgg16") == 30e12  # nothing known of it
    assert found.images(None) == 4 * 50
    assert "Measured on A, 2026-01-01" in str(found) and "forward/vgg16 8 TFLOP/s" in str(found)


def test_machine_reads_cache_at_least_as_fast_as_files() -> None:
    machine = Machine(cores=1, paces={"decoding/files": 100.0, "decoding/jpeg": 400.0, "decoding/raw": 900.0})
    for options, expected in (
        (CacheOptions(format="jpeg", short_side=256), 400.0),
        (CacheOptions(format="jpeg", short_side=128), 900.0),
        (CacheOptions(format="raw", short_side=1024), 100.0),
    ):
        assert machine.images(ImageFolder(root="/none", cache=options)) == expected


@pytest.mark.parametrize("wrong", ["missing", "text", "small", "no paces"])
def test_measured_rejects_other_files(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "results.json"
    if wrong == "text":
        file.write_text("no JSON")
    elif wrong != "missing":
        results(file, ABOUT | ({"sizes": "small (...)"} if wrong == "small" else {}))
    with pytest.raises(ArtifactError, match=r"results\.json: (no results of|holds no pace at full size)"):
        measured(file)


def test_this_machine_without_gpu_is_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cores = len(os.sched_getaffinity(0))
    assert (this_machine().cores, this_machine().tflops) == (cores, cores * CORE_TFLOPS)
    assert this_machine(3).rate("training") == 3 * CORE_TFLOPS * 1e12
    assert "without a GPU" in str(this_machine())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert this_machine() == Machine()
