"""Exported models give what the model gives, in plain torch, torchvision and ONNX Runtime."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import timm
import torch
import torchvision
from torch import nn

from ssltransfer.artifacts.files import ArtifactError, file_digest, read_json, write_json
from ssltransfer.artifacts.metrics import Metrics, write_metrics
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.cli import main
from ssltransfer.config.backbones import (
    BACKBONES,
    AlexNet,
    AlexNetBN,
    AlexNetDeepCluster,
    BackboneOptions,
    CaffeNet,
    Custom,
    HogWords,
    MobileNetV2,
    ResNet18,
    ResNet50,
    ResNet50V2,
    ResNet101V2,
    RevNet50,
    Timm,
    Torchvision,
    Vgg16,
    Vgg19BN,
)
from ssltransfer.config.entities import Pretext
from ssltransfer.extras import MissingExtraError
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.export import export
from ssltransfer.models.weights import read_model, write_model
from ssltransfer.stages import pretext

RESNET = ResNet18(img_size=64)
CAFFE = CaffeNet(width_mult=0.125, img_size=67)


def model(folder: Path, options: BackboneOptions = RESNET) -> Path:
    manifest = folder / "student" / "manifest.json"
    with WorkDir("student", manifest, "{}", {}) as work:
        backbone = build_backbone(options, include_top=True, seed=3)
        torch.manual_seed(4)
        for name, value in backbone.state_dict().items():
            # A fresh network's norms change nothing, and could be left out.
            if value.is_floating_point() and value.ndim == 1 and not name.endswith("running_var"):
                value.add_(torch.randn_like(value) * 0.05)
        made = {"method": {"name": "compress-1q", "teacher": "t"}, "data": "images"}
        work.finish(write_model(manifest.parent, backbone, "imagenet", made))
    return manifest


def features(manifest: Path, images: torch.Tensor) -> torch.Tensor:
    read = read_model(manifest)
    return read.layers_of(images, [read.backbone.layers[-1]])[read.backbone.layers[-1]]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_exported_state_dict_loads_in_torchvision(suffix: str, tmp_path: Path) -> None:
    manifest = model(tmp_path)
    output = tmp_path / f"out{suffix}"
    export(manifest, output)
    if suffix == ".pth":
        tensors = torch.load(output, weights_only=True)
    else:
        import safetensors.torch

        tensors = safetensors.torch.load_file(output)
    network = torchvision.models.resnet18()
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and not unexpected
    network.fc = torch.nn.Identity()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    plain = torchvision.transforms.functional.normalize(images / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert torch.allclose(network.eval()(plain), features(manifest, images), atol=1e-4)


PLAIN: dict[str, tuple[BackboneOptions, str]] = {
    "resnet50": (ResNet50(img_size=64), "fc"),
    "mobilenet_v2": (MobileNetV2(img_size=64), "classifier"),
    "alexnet": (AlexNet(img_size=64), "classifier.6"),
    "shufflenet_v2_x0_5": (Torchvision(model="shufflenet_v2_x0_5", return_nodes=("stage2",), img_size=64), "fc"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_exported_state_dict_loads_in_library_torchvision(name: str, tmp_path: Path) -> None:
    options, classifier = PLAIN[name]
    manifest = model(tmp_path, options)
    export(manifest, tmp_path / "out.pth")
    plain(torchvision.models.get_model(name), classifier, tmp_path / "out.pth", manifest)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_exported_state_dict_loads_in_timm(name: str, tmp_path: Path) -> None:
    manifest = model(tmp_path, Timm(model=name, img_size=64))
    export(manifest, tmp_path / "out.pth")
    more: dict[str, Any] = {"img_size": 64} if name.startswith("vit") else {}
    network = timm.create_model(name, num_classes=3, **more)
    plain(network, "fc" if name == "resnet18" else "head", tmp_path / "out.pth", manifest)


def plain(network: nn.Module, classifier: str, file: Path, manifest: Path) -> None:
    """A state dict must fill all but the classifier of somebody's own network, and that must give our features."""
    missing, unexpected = network.load_state_dict(torch.load(file, weights_only=True), strict=False)
    assert missing and not unexpected and all(name.startswith(classifier) for name in missing)
    network.set_submodule(classifier, nn.Identity())
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    given = torchvision.transforms.functional.normalize(images / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        found = network.eval().to(memory_format=torch.channels_last)(given)  # sums in the same order
    assert torch.allclose(found, features(manifest, images), rtol=1e-4, atol=1e-4)


SMALL: dict[str, Any] = {"width_mult": 0.125, "img_size": 64}
NETWORKS: list[BackboneOptions] = [
    *(CAFFE, CaffeNet(width_mult=0.125, img_size=67, bn=True), AlexNet(**SMALL), AlexNetBN(**SMALL)),
    *(AlexNetDeepCluster(**SMALL, sobel=True), Vgg16(**SMALL), Vgg16(**SMALL, bn=False, sobel=True), Vgg19BN(**SMALL)),
    *(ResNet18(**SMALL), ResNet50(**SMALL), ResNet50V2(**SMALL), ResNet101V2(**SMALL, output_stride=16)),
    *(RevNet50(**SMALL, grad_checkpointing=True, embed_dim=5), MobileNetV2(**SMALL)),
    Torchvision(model="shufflenet_v2_x0_5", return_nodes=("stage2",), img_size=64),
    Timm(model="vit_tiny_patch16_224", img_size=64),
    Timm(model="convnext_atto", return_nodes=("stages.1",), img_size=64),
    Custom(model="tests.helpers.networks:conv_net", return_nodes=("2",), img_size=64),
]


def test_export_covers_every_backbone() -> None:
    assert {type(options) for options in NETWORKS} == {kind for kind in BACKBONES if kind.is_network}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("options", NETWORKS, ids=lambda options: options.slug)
def test_exported_network_has_the_same_outputs(options: BackboneOptions, suffix: str, tmp_path: Path) -> None:
    manifest = model(tmp_path, options)
    assert "outputs equal to" in export(manifest, tmp_path / f"net{suffix}")
    images = torch.randint(0, 256, (5, 3, options.img_size, options.img_size), dtype=torch.uint8)
    found, wanted = ran(tmp_path / f"net{suffix}", images.float()), features(manifest, images)
    assert wanted.std() > 1e-4
    assert float((found - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())
    if suffix == ".pt2":
        assert "outputs equal to" in export(manifest, tmp_path / "inner.pt2", layer=options.base_layers[0])


def ran(file: Path, images: torch.Tensor) -> torch.Tensor:
    """What a network gives where nothing but torch, or ONNX Runtime, is there."""
    if file.suffix == ".pt2":
        found: torch.Tensor = torch.export.load(file).module()(images)
        return found
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])


@pytest.mark.slow
def test_exported_program_runs_without_this_package(tmp_path: Path) -> None:
    manifest = model(tmp_path, RevNet50(**SMALL, grad_checkpointing=True))
    export(manifest, tmp_path / "net.pt2")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    torch.save(images.float(), tmp_path / "images.pt")
    code = (
        "import sys, torch; network = torch.export.load('net.pt2').module();"
        "torch.save(network(torch.load('images.pt')), 'found.pt');"
        "assert not [name for name in sys.modules if name.startswith('ssltransfer')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert torch.allclose(torch.load(tmp_path / "found.pt"), features(manifest, images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_export_refuses_what_torch_cannot_export(suffix: str, tmp_path: Path) -> None:
    """Words of HOG are counted image by image: no network of any batch size."""
    manifest = model(tmp_path, HogWords(img_size=64, vocabulary_size=16))
    with pytest.raises(ArtifactError) as caught:
        export(manifest, tmp_path / f"net{suffix}")
    assert "torch cannot export hog-words-64px-16words in this format" in str(caught.value)
    assert "\n" not in str(caught.value) and not [path for path in tmp_path.iterdir() if path.is_file()]
    assert "1 tensors of hog-words" in export(manifest, tmp_path / "net.pth")


def test_model_card_describes_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = model(tmp_path)
    found = Metrics({"name": "knn"}, "student", "nn", "top1", "%", {"top1": [40.0, 50.0]}, [0, 1], {}, chance=8.25)
    write_metrics(tmp_path / "nn" / "student.json", found)
    words = ["export", str(manifest), str(tmp_path / "s.pth"), "--metrics", str(tmp_path / "nn" / "student.json")]
    assert main(words) == 0
    assert "120 tensors of resnet18" in capsys.readouterr().out
    text = (tmp_path / "s.pth.md").read_text()
    assert "`compress-1q` on images" in text and "| nn | knn | 45.00 | 8.25 | % |" in text
    assert "11,176,512 parameters" in text and read_model(manifest).digest in text


def test_make_weights_exports_models_of_a_study_with_their_cards(tmp_path: Path) -> None:
    study = tmp_path / "results/studies/small"
    for stage in ("student", "cluster"):  # clusters often have the name of a model
        shutil.copytree(model(tmp_path).parent, study / stage / "s0")
    found = Metrics({"name": "knn"}, "s0", "nn", "top1", "%", {"top1": [40.0, 50.0]}, [0, 1], {}, chance=8.25)
    write_metrics(study / "evaluate/nn/s0.json", found)
    makefile = Path(__file__).parents[2] / "Makefile"
    words = ["make", "--file", str(makefile), "--old-file", ".venv/ready", "weights", "STUDY=small", "MODELS=s0"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(words, cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)
    assert (study / "weights/s0.safetensors").stat().st_size > 40_000_000
    assert "| nn | knn | 45.00 | 8.25 | % |" in (study / "weights/s0.safetensors.md").read_text("utf-8")


def test_model_card_of_a_student_names_its_teachers(tmp_path: Path) -> None:
    """A chain: an imported teacher, a student of its stored features, and a student of its clusters."""
    torch.save(build_backbone(RESNET, include_top=True, seed=1).state_dict(), tmp_path / "w.pth")
    task = {"name": "imported", "file": str(tmp_path / "w.pth"), "license": "CC BY-NC 4.0", "normalize": "half"}
    teacher, features = (tmp_path / name / "manifest.json" for name in ("pretext/t", "features/t.pool/images"))
    pretext.run(Pretext.model_validate({"task": task, "backbone": RESNET}), output=teacher, threads=1)
    digest = read_json(teacher)["weights"]
    write_json(features, {"model": digest})
    write_json(tmp_path / "features/other.pool/images/manifest.json", {"model": "another"})
    write_json(tmp_path / "cluster/k/manifest.json", {"model": ""})

    def student(name: str, method: dict[str, str], **inputs: Path | list[Path]) -> Path:
        manifest = tmp_path / "student" / name / "manifest.json"
        spec = {"method": method, "data": "images"}
        with WorkDir("student", manifest, json.dumps(spec), inputs) as work:
            backbone = build_backbone(
                RESNET, include_top=True, seed={"online": 10, "stored": 11, "labels": 12, "both": 13}[name]
            )
            work.finish(write_model(manifest.parent, backbone, "imagenet", spec))
        return manifest

    online = student("online", {"name": "compress-1q", "teacher": "t"}, teacher=teacher)
    stored = student("stored", {"name": "regression", "teacher": "t"}, features=features)
    write_json(tmp_path / "cluster/k/manifest.json", {"model": read_json(stored)["weights"]})
    labels = student("labels", {"name": "cluster-classification", "cluster": "k"})
    both = student("both", {"name": "feature-distillation", "teacher": "t"}, teacher=teacher, further_teachers=[online])
    for manifest, chain in (
        (online, ["t"]),
        (stored, ["t"]),
        (labels, ["stored", "t"]),
        (both, ["t", "online"]),
    ):
        export(manifest, tmp_path / "s.pth")
        text = (tmp_path / "s.pth.md").read_text()
        assert re.findall("- Teacher: `(.*?)`", text) == chain
        assert "resnet18, img_size 64, 11,176,512 parameters; normalization `half`; weights " + digest in text
        assert f"Origin: `w.pth`, BLAKE2b {file_digest(tmp_path / 'w.pth')}" in text
        assert "License of `w.pth`: CC BY-NC 4.0" in text
    export(teacher, tmp_path / "t.pth")
    assert "License of `w.pth`: CC BY-NC 4.0" in (tmp_path / "t.pth.md").read_text()
    # A student of its own clusters: the chain ends.
    write_json(tmp_path / "cluster/k/manifest.json", {"model": read_json(labels)["weights"]})
    export(labels, tmp_path / "s.pth")
    assert "- Teacher" not in (tmp_path / "s.pth.md").read_text()


@pytest.mark.parametrize("through", ["features", "clusters"])
def test_model_card_names_the_file_of_vectors_that_taught_a_student(through: str, tmp_path: Path) -> None:
    features, cluster = (tmp_path / name / "manifest.json" for name in ("features/clip/images", "cluster/k"))
    write_json(
        features, {"model": "ef56", "inputs": {}, "spec": {"file": {"path": "/data/clip.npz", "digest": "ef56"}}}
    )
    write_json(
        features.parents[2] / "a/images/manifest.json",
        {"model": "b", "spec": {"file": {"path": "a.npz", "digest": "b"}}},
    )
    write_json(cluster, {"model": "ef56"})
    manifest = tmp_path / "student" / "s" / "manifest.json"
    name = {"name": "regression", "teacher": "clip"}
    method = name if through == "features" else {"name": "cluster-classification", "cluster": "k"}
    spec = {"method": method, "data": "images"}
    with WorkDir(
        "student", manifest, json.dumps(spec), {"features": features} if through == "features" else {}
    ) as work:
        work.finish(write_model(manifest.parent, build_backbone(RESNET, include_top=True), "imagenet", spec))
    export(manifest, tmp_path / "s.pth")
    teachers = [line for line in (tmp_path / "s.pth.md").read_text().splitlines() if line.startswith("- Teacher")]
    assert teachers == ["- Teacher: vectors of `clip.npz`, BLAKE2b ef56"]


def test_export_refuses_wrong_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = model(tmp_path)
    with pytest.raises(ArtifactError, match=r"use one of .pth, .safetensors, .pt2, .onnx"):
        export(manifest, tmp_path / "net.bin")
    for other in (manifest.parent, manifest.parent / "backbone.safetensors"):
        with pytest.raises(ArtifactError, match=r"not a manifest; give manifest\.json of the model"):
            export(other, tmp_path / "net.pth")
    (tmp_path / "x.run.json").write_text("{}")
    (tmp_path / "x.json").write_text("{}")
    export(manifest, tmp_path / "good.pth", metrics=[tmp_path / "x.run.json"])
    with pytest.raises(ArtifactError, match=r"x\.json"):
        export(manifest, tmp_path / "net.pth", metrics=[tmp_path / "x.json"])
    assert not (tmp_path / "net.pth").exists()
    (tmp_path / "good.pth.md").unlink()
    with pytest.raises(LayerError, match="no layer 'fc9'"):
        export(manifest, tmp_path / "net.onnx", layer="fc9")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[onnx\]"):
        export(manifest, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists() and not list(tmp_path.glob("*.md"))
