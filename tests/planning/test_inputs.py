"""Whether the inputs of a configuration are ready: files that are missing, that do not fit, and that do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ssltransfer.config.entities import Pretext
from ssltransfer.config.load import complete
from ssltransfer.models.build import build_backbone
from ssltransfer.planning.inputs import input_problems
from ssltransfer.stages.pretext import run as run_pretext

BACKBONE = {"name": "resnet18", "width_mult": 0.125, "img_size": 64}


def problems(tmp_path: Path, **sections: object) -> list[str]:
    return list(input_problems(complete({"results": str(tmp_path / "results"), **sections})))


def teacher(file: Path, backbone: object = BACKBONE) -> dict[str, object]:
    return {"teacher": {"task": {"name": "imported", "file": str(file)}, "backbone": backbone}}


def weights(file: Path, **changes: object) -> Path:
    spec = Pretext.parse(json.dumps({"task": "random", "backbone": BACKBONE | changes}))
    torch.save(build_backbone(spec.backbone, include_top=False).state_dict(), file)
    return file


def test_input_problems_are_none_if_all_inputs_are_ready(tmp_path: Path):
    (tmp_path / "images").mkdir()
    (tmp_path / "list.txt").write_text("a.png\n")
    images = {"format": "folder", "root": str(tmp_path / "images"), "include": str(tmp_path / "list.txt")}
    drawn = {"format": "synthetic", "subset": "objects", "split": "train", "num_images": 8}
    fetched = {"format": "cifar10", "split": "train", "root": str(tmp_path / "cifar")}
    datasets = {"images": images, "drawn": drawn, "fetched": fetched}
    assert problems(tmp_path, datasets=datasets, pretexts=teacher(weights(tmp_path / "w.pth"))) == []


def test_input_problems_name_missing_files(tmp_path: Path):
    images = {"format": "folder", "root": str(tmp_path / "images"), "exclude": str(tmp_path / "list.txt")}
    fetched = {"format": "cifar10", "split": "train", "root": str(tmp_path / "cifar"), "download": False}
    datasets = {"images": images, "fetched": fetched}
    found = problems(tmp_path, datasets=datasets, pretexts=teacher(tmp_path / "w.pth"))
    files = (
        "list.txt: no such file",
        "images: no such folder",
        "cifar: no such folder",
        "w.pth: no such",
    )
    assert [part in line for part, line in zip(files, found, strict=True)] == [True] * 4
    assert found[0].startswith("datasets.images.exclude:")
    assert found[3].startswith("pretexts.teacher.task.file:")


def test_input_problems_name_tensors_that_do_not_fit(tmp_path: Path):
    """Another width and a file that is not one of weights, as the import refuses them later."""
    assert [
        "use `width_mult: 0.25`" in line
        for line in problems(tmp_path, pretexts=teacher(weights(tmp_path / "w.pth", width_mult=0.25)))
    ] == [True]
    (tmp_path / "page.pth").write_text("<html>")
    (line,) = problems(tmp_path, pretexts=teacher(tmp_path / "page.pth"))
    assert "not a file of weights" in line


def test_input_problems_skip_made_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Weights of an imported model are not read again; those of another one are."""
    monkeypatch.chdir(tmp_path)
    config = complete({"results": "results", "pretexts": teacher(weights(tmp_path / "w.pth"))})
    spec = config.pretexts["teacher"]
    run_pretext(
        spec, data=None, val=None, task_data=[], model=None, output=Path("results/pretext/teacher/manifest.json")
    )
    monkeypatch.setattr("ssltransfer.tasks.pretext.imported.check_weights", lambda pretext: pytest.fail("read again"))
    assert list(input_problems(config)) == []
