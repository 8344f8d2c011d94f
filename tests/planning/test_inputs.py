"""Whether the inputs of a configuration are ready: files that are missing, that do not fit, and that do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from ssltransfer.artifacts.index import Index, write_index
from ssltransfer.config import complete, read_config
from ssltransfer.config.entities import Pretext
from ssltransfer.models.build import build_backbone
from ssltransfer.planning import costs
from ssltransfer.planning.costs import images
from ssltransfer.planning.inputs import input_problems
from ssltransfer.planning.machine import Machine
from ssltransfer.stages.pretext import run as run_pretext

ROOT = Path(__file__).parents[2]
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
    (tmp_path / "set.tar").touch()
    packed = {"format": "folder", "root": str(tmp_path / "set.tar" / "train")}
    datasets = {"images": images, "drawn": drawn, "fetched": fetched, "packed": packed}
    assert problems(tmp_path, datasets=datasets, pretexts=teacher(weights(tmp_path / "w.pth"))) == []


def test_input_problems_name_missing_files(tmp_path: Path):
    images = {"format": "folder", "root": str(tmp_path / "images"), "exclude": str(tmp_path / "list.txt")}
    fetched = {"format": "cifar10", "split": "train", "root": str(tmp_path / "cifar"), "download": False}
    table = {"format": "table", "table": str(tmp_path / "t.csv")}
    datasets = {"images": images, "fetched": fetched, "table": table}
    found = problems(tmp_path, datasets=datasets, pretexts=teacher(tmp_path / "w.pth"))
    files = (
        "list.txt: no such file",
        "images: no such folder",
        "cifar: no such folder",
        "t.csv: no such file",
        "w.pth: no such",
    )
    assert [part in line for part, line in zip(files, found, strict=True)] == [True] * len(files)
    assert found[0].startswith("datasets.images.exclude:")
    assert found[4].startswith("pretexts.teacher.task.file:")


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


def test_compress_own_config_accepts_own_files_and_takes_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Folders of any depth and a teacher's file, on two cores."""
    monkeypatch.chdir(tmp_path)
    for folder, classes in (("images", ("a", "b/c")), ("known", ("x", "y/z"))):
        for name in classes:
            Path("data", folder, name).mkdir(parents=True)
            for number in range(10):
                Path("data", folder, name, f"{number}.png").touch()
    Path("weights").mkdir()
    torch.save(torchvision.models.resnet50().state_dict(), "weights/teacher.pth")
    config = read_config(ROOT / "config/compress_own.yaml")
    assert list(input_problems(config)) == []
    assert images(config, "images") == 20
    monkeypatch.setattr(costs, "images", lambda config, name: config.datasets[name].limit)
    hours = sum(cost.hours for cost in costs.estimate(config, Machine(0.1, 2)) if cost.hours)
    assert hours < 1.5
    assert not any(name.startswith("supervised") for name in config.models)


def test_input_problems_check_files_of_features(tmp_path: Path, objects: Index, objects_path: Path):
    """The file before any job, and its images as soon as their dataset is indexed."""
    file = tmp_path / "clip.npz"
    drawn = {"format": "synthetic", "subset": "objects", "split": "train", "num_images": 48, "size": 64}
    drawn["root"] = str(objects.root)
    sections = {
        "datasets": {"drawn": drawn},
        "features": {"clip": {"file": str(file)}},
        "clusters": {"k": {"features": "clip", "data": "drawn", "k": 4}},
    }
    assert problems(tmp_path, **sections) == [
        f"features.clip.file: {file}: no such file, or not readable; check the path."
    ]
    np.savez(file, path=np.array(["a", "a"]), feature=np.ones((2, 3)))
    (line,) = problems(tmp_path, **sections)
    assert line.startswith("features.clip.file:") and "more than once" in line
    np.savez(file, path=np.array(objects.paths[1:]), feature=np.ones((47, 3)))
    assert problems(tmp_path, **sections) == []
    (tmp_path / "results" / "index").mkdir(parents=True)
    spec = complete(sections).datasets["drawn"].canonical()
    index = tmp_path / "results" / "index" / "drawn.parquet"
    write_index(index, replace(objects, spec=json.loads(spec)))
    (line,) = problems(tmp_path, **sections)
    assert "no vector for 1 of the 48 images" in line
    (cost,) = (one for one in costs.estimate(complete(sections), Machine()) if one.stage == "cluster")
    assert cost.disk_gb == 4 * 3 * 4e-9
