"""`ssltransfer check`: one line per finding, and its exit code."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ssltransfer.cli import main
from ssltransfer.planning import readiness

Usage = namedtuple("Usage", "total used free")
Memory = namedtuple("Memory", "total")


def write(folder: Path, **changes: Any) -> str:
    images = folder / "images"
    images.mkdir()
    for number in range(5):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(images / f"{number}.png")
    backbone = {"name": "resnet18", "width_mult": 0.25, "img_size": 32}
    content = {
        "results": str(folder / "results"),
        "datasets": {"photos": {"format": "folder", "root": str(images)}},
        "pretexts": {"model": {"task": "random", "backbone": backbone}},
        "features": {"last": {"model": "model", "layer": "pool"}},
        "clusters": {"groups": {"features": "last", "data": "photos", "k": 2}},
    }
    file = folder / "config.yaml"
    file.write_text(json.dumps(content | changes))
    return str(file)


def test_check_accepts_what_is_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", write(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ok       datasets.photos: 5 images" in lines
    assert any(line.startswith("ok       disk: 3 MB needed, ") for line in lines)
    assert any("GPU" in line for line in lines) and any("CPU: " in line for line in lines)
    assert any(line.startswith("warning  clusters.groups.k: 2 clusters of 5 images") for line in lines)


def test_check_lists_all_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datasets = {name: {"format": "folder", "root": f"/nowhere/{name}"} for name in ("photos", "others")}
    weights = {"task": {"name": "imported", "file": "/nowhere/w.pth"}, "backbone": "resnet18"}
    file = write(tmp_path, datasets=datasets, pretexts={"model": weights})
    assert main(["check", file]) == 1
    missing = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing")]
    assert [line.split(": ")[0].split()[1] for line in missing] == [
        "datasets.photos.root", "datasets.others.root", "pretexts.model.task.file"
    ]  # fmt: skip


def test_check_compares_the_free_disk_with_the_estimate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path)
    monkeypatch.setattr(readiness.shutil, "disk_usage", lambda folder: Usage(1, 1, 1000))
    assert main(["check", file]) == 1
    assert f"missing  disk: 3 MB needed, < 1 MB free at {tmp_path}" in capsys.readouterr().out
    monkeypatch.setattr(readiness.shutil, "disk_usage", lambda folder: Usage(1, 1, 5e6))
    assert main(["check", file]) == 0, "the disk has room for five megabytes"


@pytest.mark.parametrize("micro", [None, 8])
def test_check_compares_memory_with_trainings(
    micro: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with clusterings, whose data need not be in memory; a smaller micro-batch needs less."""
    monkeypatch.setattr(readiness.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(readiness.psutil, "virtual_memory", lambda: Memory(1e8))
    photos = {"format": "folder", "root": str(tmp_path / "images"), "num_images_hint": 10**7}
    backbone = {"name": "resnet18", "width_mult": 0.25, "img_size": 32}
    schedule = {"steps": 1, "batch_size": 4096, "lr": 0.1, "micro_batch_size": micro}
    model = {"task": "rotation", "backbone": backbone, "data": "photos", "schedule": schedule}
    assert main(["check", write(tmp_path, datasets={"photos": photos}, pretexts={"model": model})]) == 0
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning  memory: ")]
    assert [line.split(" needs")[0] for line in found] == ([] if micro else ["warning  memory: pretext model"])


def test_check_does_not_count_what_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = {"name": "resnet50", "img_size": 32}
    file = write(tmp_path, pretexts={"model": {"task": "random", "backbone": backbone}})
    assert main(["check", file]) == 0
    assert "disk: 94 MB needed" in capsys.readouterr().out
    made = tmp_path / "results" / "pretext" / "model" / "manifest.json"
    made.parent.mkdir(parents=True)
    made.touch()
    assert main(["check", file]) == 0
    assert "disk: < 1 MB needed" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "results")


def test_check_finds_a_shipped_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "presets/probe.yaml"]) == 1
    assert "missing  datasets.labeled.root: data/labeled: no such folder" in capsys.readouterr().out


def test_check_lists_tables_and_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the index stage would refuse is reported: a column that does not exist, and a compressed archive."""
    (tmp_path / "t.csv").write_text("file,breed\nimages/0.png,cat\n")
    packed = shutil.make_archive(str(tmp_path / "packed"), "gztar", tmp_path)
    datasets = {
        "column": {"format": "table", "table": str(tmp_path / "t.csv"), "label": "class"},
        "photos": {"format": "folder", "root": packed},
        "good": {"format": "table", "table": str(tmp_path / "t.csv"), "label": "breed"},
    }
    assert main(["check", write(tmp_path, datasets=datasets)]) == 1
    lines = capsys.readouterr().out.splitlines()
    missing = [line for line in lines if line.startswith("missing")]
    assert [line.split(": ")[0].split()[1] for line in missing] == ["datasets.column", "datasets.photos"]
    assert "class" in missing[0] and "ok       datasets.good: 1 images" in lines
