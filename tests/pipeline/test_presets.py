"""Presets: `ssltransfer init` writes a valid, short configuration for folders and networks of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ssltransfer.cli import main
from ssltransfer.config import read_config
from ssltransfer.config.backbones import ResNet18, Timm, Torchvision
from ssltransfer.config.tasks import Pretrained
from ssltransfer.models.build import build_backbone
from ssltransfer.pipeline.presets import PRESETS, TEACHERS, VALUES, presets
from ssltransfer.planning.inputs import network_problems
from ssltransfer.tasks.pretext.pretrained import check_pretrained

NEEDED = {
    "distill": ["--images", "my photos", "--labeled", "data/images"],
    "own-images": ["--images", "a", "--labeled", "b"],
    "cluster": ["--images", "no"],
    "probe": ["--labeled", "12", "--checkpoint", "w.pth", "--backbone", "mobilenet-v2"],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*words: str) -> Any:
    assert main(["init", *words]) == 0
    return read_config(f"{words[0]}.yaml")


@pytest.mark.parametrize("name", NEEDED)
def test_init_writes_a_valid_commented_configuration(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = init(name, *NEEDED[name])
    out = capsys.readouterr().out
    assert f"ssltransfer check {name}.yaml" in out and f"ssltransfer run {name}.yaml" in out
    text = Path(f"{name}.yaml").read_text()
    schema = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert Path(schema).is_absolute() and Path(schema).is_file()
    assert "Cost:" in text and f"#   ssltransfer estimate {name}.yaml" in text
    assert config.results == f"results/{name}"
    given = dict(zip(NEEDED[name][::2], NEEDED[name][1::2], strict=True))
    roots = {entry.root for entry in config.datasets.values()}
    assert roots == {given[option] for option in ("--images", "--labeled") if option in given}


def test_presets_of_this_test_are_all() -> None:
    assert set(presets()) == set(NEEDED)


@pytest.mark.parametrize("key", VALUES)
def test_every_option_replaces_something(key: str) -> None:
    assert any(VALUES[key] in file.read_text() for file in PRESETS.glob("*.yaml"))


def test_distill_has_at_most_twelve_lines() -> None:
    init("distill", *NEEDED["distill"])
    lines = Path("distill.yaml").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) <= 12


@pytest.mark.parametrize(
    ("student", "backbone", "optimizer"),
    [
        ("resnet18", ResNet18(), "sgd"),
        ("mobilenet_v3", Torchvision(model="mobilenet_v3_large"), "sgd"),
        ("vit_tiny", Timm(model="vit_tiny_patch16_224"), "adamw"),
        ("timm/deit_tiny_patch16_224", Timm(model="deit_tiny_patch16_224"), "adamw"),
        ("timm/convnext_tiny", Timm(model="convnext_tiny"), "adamw"),
        ("torchvision/swin_t", Torchvision(model="swin_t"), "adamw"),
        ("timm/resnet18d", Timm(model="resnet18d"), "sgd"),
    ],
)
def test_distill_takes_any_teacher_and_student(student: str, backbone: object, optimizer: str) -> None:
    config = init("distill", *NEEDED["distill"], "--student", student, "--teacher", "torchvision/resnet50")
    entry, teacher = config.students["student"], config.pretexts["teacher"]
    assert (entry.backbone, entry.schedule.optimizer) == (backbone, optimizer)
    assert isinstance(teacher.task, Pretrained) and teacher.backbone == Torchvision(model="resnet50", img_size=224)
    assert list(network_problems(config)) == []


def test_unknown_network_of_a_library_is_reported_by_check() -> None:
    config = init("distill", *NEEDED["distill"], "--student", "timm/no_such_model")
    assert "students.student.backbone" in [problem.partition(":")[0] for problem in network_problems(config)]


@pytest.mark.parametrize("preset", ["distill", "cluster"])
@pytest.mark.parametrize("name", TEACHERS)
def test_short_names_of_teachers_are_published_weights(name: str, preset: str) -> None:
    config = init(preset, *NEEDED[preset], "--teacher", name)
    (teacher,) = (one for one in config.pretexts.values() if isinstance(one.task, Pretrained))
    assert f"_{name}." in teacher.backbone.model
    check_pretrained(teacher)
    assert list(network_problems(config)) == []


def test_distill_takes_a_teacher_from_a_file() -> None:
    torch.save(build_backbone(ResNet18(width_mult=0.125), include_top=False).state_dict(), "teacher.pth")
    config = init("distill", *NEEDED["distill"], "--teacher", "teacher.pth", "--backbone", "resnet18")
    assert config.pretexts["teacher"].task.file.path == "teacher.pth"
    assert config.pretexts["teacher"].backbone == ResNet18()


def test_init_never_overwrites_and_names_results_after_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["init", "cluster", "--images", "a", "-k", "7"]
    assert main([*words, "--output", "mine.yaml"]) == 0
    content = yaml.safe_load(Path("mine.yaml").read_text())
    assert content["results"] == "results/mine" and content["clusters"]["groups"]["k"] == 7
    before = Path("mine.yaml").read_bytes()
    assert main([*words, "--output", "mine.yaml"]) == 1
    assert "mine.yaml: exists" in capsys.readouterr().err and Path("mine.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["distil"], "no preset is called 'distil'; did you mean 'distill'?"),
        (["distill", "--images", "a"], "the preset distill needs --labeled"),
        (["probe", "-k", "3"], "the preset probe has no --k; it has --labeled, --checkpoint"),
        (["distill", *NEEDED["distill"], "--student", "resnet19"], "did you mean 'resnet18'?"),
        (["cluster", "--images", "a", "-k", "1"], "clusters.groups.k: input should be greater than"),
        (["cluster", "--images", "a", "--backbone", "resnet50"], "--backbone is that of a file of weights; give --"),
        (["--images", "a"], "name a preset before the options: cluster,"),
    ],
)
def test_init_refuses_wrong_words(
    words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", *words]) == 1
    assert said in capsys.readouterr().err and not list(folder.iterdir())


def test_list_presets_prints_their_first_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "presets"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "distill Distill a pretrained teacher into a small network" in text
