"""Exported models give what the model gives, in plain torch, torchvision and ONNX Runtime."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from ssltransfer.artefacts.files import ArtefactError
from ssltransfer.artefacts.metrics import Metrics, write_metrics
from ssltransfer.artefacts.work import Work
from ssltransfer.cli import main
from ssltransfer.config.trunks import CaffeNet, ResNet18, ResNet50V2, RevNet50, Torchvision, TrunkOptions, Vgg19BN
from ssltransfer.models.build import build_trunk
from ssltransfer.models.export import export
from ssltransfer.models.trunk import LayerError
from ssltransfer.models.weights import read_model, write_model

RESNET = ResNet18(size=64)
CAFFE = CaffeNet(width=0.125, size=67)


def model(folder: Path, options: TrunkOptions = RESNET) -> Path:
    manifest = folder / "student" / "manifest.json"
    with Work("student", manifest, "{}", {}) as work:
        trunk = build_trunk(options, top=True, seed=3)
        made = {"method": {"name": "compress-1q", "teacher": "t"}, "data": "pictures"}
        work.finish(write_model(manifest.parent, trunk, "imagenet", made))
    return manifest


def features(manifest: Path, pictures: torch.Tensor) -> torch.Tensor:
    read = read_model(manifest)
    return read.layers_of(pictures, [read.trunk.layers[-1]])[read.trunk.layers[-1]]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_state_dict_fills_torchvisions_network(suffix: str, tmp_path: Path) -> None:
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
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    plain = torchvision.transforms.functional.normalize(pictures / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert torch.allclose(network.eval()(plain), features(manifest, pictures), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("options", [RESNET, CAFFE], ids=lambda options: options.name)
def test_an_onnx_file_gives_the_same_in_onnx_runtime(options: TrunkOptions, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    manifest = model(tmp_path, options)
    said = export(manifest, tmp_path / "net.onnx")
    assert "outputs equal to" in said
    pictures = torch.randint(0, 256, (5, 3, options.size, options.size), dtype=torch.uint8)
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(["features"], {"pictures": pictures.float().numpy()})[0]
    assert np.allclose(found, features(manifest, pictures).numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_an_exported_program_gives_the_same_in_plain_torch(tmp_path: Path) -> None:
    manifest = model(tmp_path)
    export(manifest, tmp_path / "net.pt2", layer="pool")
    network = torch.export.load(tmp_path / "net.pt2").module()
    pictures = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    assert torch.allclose(network(pictures.float()), features(manifest, pictures), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        RevNet50(width=0.125, size=64, recompute=True, representation=5),
        ResNet50V2(width=0.125, size=64),
        Vgg19BN(width=0.06, size=64),
        Torchvision(model="shufflenet_v2_x0_5", endpoints=("stage2",), size=64),
    ],
    ids=lambda options: options.name,
)
def test_an_exported_program_of_other_networks(options: TrunkOptions, tmp_path: Path) -> None:
    manifest = model(tmp_path, options)
    export(manifest, tmp_path / "net.pt2")
    pictures = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    found = torch.export.load(tmp_path / "net.pt2").module()(pictures.float())
    assert torch.allclose(found, features(manifest, pictures), rtol=1e-3, atol=1e-4)
    inner = options.convolutions[0]
    assert "outputs equal to" in export(manifest, tmp_path / "inner.pt2", layer=inner)


def test_the_card_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = model(tmp_path)
    found = Metrics(
        {"name": "neighbours"}, "student", "nn", "top1", "%", {"top1": [40.0, 50.0]}, [0, 1], {}, chance=8.25
    )
    write_metrics(tmp_path / "nn" / "student.json", found)
    words = ["export", str(manifest), str(tmp_path / "s.pth"), "--metrics", str(tmp_path / "nn" / "student.json")]
    assert main(words) == 0
    assert "120 tensors of resnet18" in capsys.readouterr().out
    text = (tmp_path / "s.pth.md").read_text()
    assert "`compress-1q` on pictures" in text and "| nn | neighbours | 45.00 | 8.25 | % |" in text
    assert "11,176,512 parameters" in text and read_model(manifest).digest in text


def test_what_cannot_be_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = model(tmp_path)
    with pytest.raises(ArtefactError, match=r"name one of .pth, .safetensors, .pt2, .onnx"):
        export(manifest, tmp_path / "net.bin")
    with pytest.raises(LayerError, match="no layer 'fc9'"):
        export(manifest, tmp_path / "net.onnx", layer="fc9")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ArtefactError, match="pip install onnx"):
        export(manifest, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists() and not list(tmp_path.glob("*.md"))
