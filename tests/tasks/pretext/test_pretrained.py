"""Published weights by name: random weights in the caches of the libraries, where the downloads would be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from pydantic import ValidationError

from ssltransfer.artifacts.files import ArtifactError, read_json
from ssltransfer.config.entities import Pretext
from ssltransfer.models.export import export
from ssltransfer.models.weights import read_model
from ssltransfer.stages import pretext
from ssltransfer.tasks.pretext.pretrained import check_pretrained

SHUFFLENET = "torchvision/shufflenet_v2_x0_5.IMAGENET1K_V1"
VIT = "timm/test_vit.r160_in1k"


def spec_of(weights: str | None, **more: Any) -> Pretext:
    return Pretext.model_validate({"task": {"name": "pretrained", "weights": weights}, **more})


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of torchvision with weights of a ShuffleNet."""
    weights = torchvision.models.get_model_weights("shufflenet_v2_x0_5")["IMAGENET1K_V1"]
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    state = torchvision.models.shufflenet_v2_x0_5().state_dict()
    torch.save(state, folder / weights.url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return folder


def test_weights_of_torchvision_are_loaded_with_their_record(torch_home: Path, tmp_path: Path) -> None:
    output = tmp_path / "teacher" / "manifest.json"
    pretext.run(spec_of(SHUFFLENET), output=output, threads=1)
    model, content = read_model(output), read_json(output)
    published = torch.load(next(torch_home.iterdir()))
    assert torch.equal(model.backbone.state_dict()["conv1.0.weight"], published["conv1.0.weight"])
    assert model.backbone.options.slug.startswith("torchvision-shufflenet_v2_x0_5")
    assert model.normalization == "imagenet" and model.backbone.options.img_size == 224
    assert content["source"] == f"{SHUFFLENET}, by torchvision {torchvision.__version__}"
    export(output, tmp_path / "teacher.safetensors")
    text = (tmp_path / "teacher.safetensors.md").read_text("utf-8")
    assert f"Origin: `{SHUFFLENET}" in text and "not stated; it may bind this model too" in text


def in_a_process(spec: Pretext, output: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """The command of the stage; the hub reads its variables once."""
    words = ["pretext", "--spec", spec.canonical(), "--output", str(output), "--threads", "1"]
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "ssltransfer.cli", *words], env=environment, capture_output=True, text=True
    )


def test_weights_of_timm_are_loaded_with_their_record(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models--timm--test_vit.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    torch.manual_seed(0)
    state = timm.create_model("test_vit").state_dict()
    safetensors.torch.save_file(state, folder / "snapshots" / "abc" / "model.safetensors")
    spec, output = spec_of(VIT), tmp_path / "teacher" / "manifest.json"
    run = in_a_process(spec, output, tmp_path)
    assert run.returncode == 0, run.stderr
    model, content = read_model(output), read_json(output)
    assert torch.equal(model.backbone.state_dict()["blocks.1.mlp.fc1.weight"], state["blocks.1.mlp.fc1.weight"])
    assert (model.backbone.options.img_size, model.normalization) == (160, "half")
    assert content["license"] == "apache-2.0"
    assert content["source"] == f"{VIT}, by timm {timm.__version__}"


def test_weights_that_cannot_be_fetched_are_one_sentence(tmp_path: Path) -> None:
    output = tmp_path / "teacher" / "manifest.json"
    run = in_a_process(spec_of(VIT), output, tmp_path)
    assert run.returncode == 1 and not output.exists()
    assert f"{VIT}: cannot be fetched from repository timm/test_vit.r160_in1k of the Hugging Face hub" in run.stderr
    assert run.stderr.rstrip().endswith("or bring the file and use the task imported.")
    assert "Traceback" not in run.stderr


def test_backbone_follows_from_the_weights_or_names_them() -> None:
    assert json.loads(spec_of("timm/test_vit").canonical())["backbone"] == {
        "name": "timm",
        "model": "test_vit.r160_in1k",
        "img_size": 160,
    }
    named = Pretext.model_validate(
        {"task": "pretrained", "backbone": {"name": "timm", "model": "test_vit.r160_in1k", "img_size": 96}}
    )
    check_pretrained(named)
    assert named.task.weights_for(named.backbone) == VIT  # type: ignore[attr-defined]
    check_pretrained(spec_of(VIT, backbone={"name": "timm", "model": "test_vit", "img_size": 96}))
    check_pretrained(spec_of("torchvision/resnet18", backbone="resnet18"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"task": {"name": "pretrained", "weights": "timm/resnet51"}}, "timm has no network 'resnet51'; did you mean"),
        (
            {"task": {"name": "pretrained", "weights": "timm/test_vit.in1k"}},
            r"no weights 'in1k' of test_vit; did you mean",
        ),
        ({"task": {"name": "pretrained", "weights": "torchvision/resnet18.V1"}}, "no weights 'V1' of resnet18"),
        ({"task": {"name": "pretrained", "weights": "resnet18"}}, "String should match pattern"),
        ({"task": "pretrained", "backbone": "resnet18"}, "set `weights` of the task"),
    ],
)
def test_unknown_weights_are_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Pretext.model_validate(content)


def test_weights_of_another_network_are_refused_before_they_are_fetched() -> None:
    with pytest.raises(
        ArtifactError, match=r"torchvision/resnet34\.IMAGENET1K_V1 has no tensor layer1.0.conv1.weight of shape"
    ):
        check_pretrained(spec_of("torchvision/resnet34", backbone="resnet50"))


def test_published_weights_have_no_representation() -> None:
    backbone = {"name": "timm", "model": "test_vit.r160_in1k", "img_size": 96, "embed_dim": 8}
    spec = Pretext.model_validate({"task": "pretrained", "backbone": backbone})
    with pytest.raises(
        ArtifactError, match=r"has no tensor representation.weight of shape \(8, 64\), which the backbone"
    ):
        check_pretrained(spec)
