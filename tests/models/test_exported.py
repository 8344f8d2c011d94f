"""Exported programs and ONNX files as frozen networks: equal features, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssltransfer.artifacts.files import ArtifactError, read_json
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config import complete
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, ResNet18
from ssltransfer.config.base import ConfigError
from ssltransfer.config.entities import Pretext
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.export import export
from ssltransfer.models.weights import read_model, write_model
from ssltransfer.planning.inputs import input_problems
from ssltransfer.planning.networks import dims_of
from ssltransfer.stages import pretext

SMALL = ResNet18(width_mult=0.125, img_size=32)
IMAGES = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def model(folder: Path, options: BackboneOptions) -> Path:
    manifest = folder / "student" / "manifest.json"
    with WorkDir("student", manifest, "{}", {}) as work:
        backbone = build_backbone(options, include_top=True, seed=3)
        work.finish(write_model(manifest.parent, backbone, "imagenet", {"method": {"name": "supervised"}}))
    return manifest


def imported(file: Path, folder: Path, backbone: Any = None, **task: Any) -> Path:
    """Manifest of the model that the pretext stage makes of a file."""
    content = {"task": {"name": "imported", "file": str(file), **task}}
    spec = Pretext.model_validate(content | ({"backbone": backbone} if backbone else {}))
    assert Pretext.parse(spec.canonical()) == spec
    pretext.run(spec, output=folder / "teacher" / "manifest.json", threads=1)
    return folder / "teacher" / "manifest.json"


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("options", [SMALL, CaffeNet(width_mult=0.125, img_size=67)], ids=lambda one: one.name)
def test_exported_network_has_features_and_view_of_its_model(
    suffix: str, options: BackboneOptions, tmp_path: Path
) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    manifest = model(tmp_path, options)
    export(manifest, tmp_path / f"out{suffix}")
    own, other = read_model(manifest), read_model(imported(tmp_path / f"out{suffix}", tmp_path))
    assert own.view == other.view
    size = options.img_size
    images = torch.randint(0, 256, (5, 3, size, size), dtype=torch.uint8)
    last = own.backbone.layers[-1]
    expected = own.features_of(images, last, None)
    if own.backbone.shapes()[last][1:]:
        expected = own.layers_of(images, [last])[last].mean((2, 3))
    found = other.features_of(images, "output", None)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert dims_of(other.backbone.options, "output", None) == expected.shape[1]


class Net(nn.Module):
    def __init__(self, last: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.last = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), last or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.conv(x)).relu().mean((2, 3)))


def program(file: Path, network: nn.Module, *, batch: bool = True) -> Path:
    shapes = ({0: torch.export.Dim("batch", min=1)},) if batch else None
    images = torch.rand(3, 3, 32, 32)
    torch.export.save(torch.export.export(network, (images,), dynamic_shapes=shapes), file)
    return file


BACKBONE = {"name": "exported", "img_size": 32}


def test_exported_program_of_others_gets_its_stated_normalization(tmp_path: Path) -> None:
    network = Net().eval()
    manifest = imported(program(tmp_path / "n.pt2", network), tmp_path, BACKBONE, normalize="half")
    found = read_model(manifest).features_of(IMAGES, "output", None)
    torch.testing.assert_close(found, network(IMAGES / 255 * 2 - 1).detach())
    other = imported(
        program(tmp_path / "o.pt2", Net(nn.Linear(8, 8)).eval()), tmp_path / "o", BACKBONE, normalize="half"
    )
    assert read_json(manifest)["weights"] != read_json(other)["weights"]


@pytest.mark.parametrize(
    ("network", "batch", "task", "message"),
    [
        (Net().eval(), True, {}, "state `normalize` of the task"),
        (Net().train(), True, {"normalize": "half"}, "depend on the batch; export the network after"),
        (Net(nn.Unflatten(1, (4, 2))).eval(), True, {"normalize": "half"}, r"returns \(3, 4, 2\); export one"),
        (Net(nn.Threshold(1e9, float("nan"))).eval(), True, {"normalize": "half"}, "is constant or not finite"),
        (Net().eval(), False, {"normalize": "half"}, "with a dynamic batch size"),
    ],
)
def test_exported_network_is_refused_before_any_job(
    network: nn.Module, batch: bool, task: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = program(tmp_path / "n.pt2", network, batch=batch)
    with pytest.raises((ArtifactError, LayerError), match=message):
        imported(file, tmp_path, BACKBONE, **task)
    teacher = {"task": {"name": "imported", "file": str(file), **task}, "backbone": BACKBONE}
    (line,) = input_problems(complete({"results": str(tmp_path / "r"), "pretexts": {"t": teacher}}))
    assert line.startswith("pretexts.t.task: ")


def test_exported_file_that_is_not_a_network_is_refused(tmp_path: Path) -> None:
    for name in ("n.pt2", "n.onnx"):
        (tmp_path / name).write_text("<html>")
        with pytest.raises(LayerError, match="not a network for images"):
            imported(tmp_path / name, tmp_path, BACKBONE, normalize="half")


def test_exported_network_is_not_trained(tmp_path: Path) -> None:
    file = str(program(tmp_path / "n.pt2", Net().eval()))
    task = {"name": "imported", "file": file, "normalize": "half"}
    with pytest.raises(ValueError, match="must be used together"):
        Pretext.model_validate({"task": task, "backbone": "resnet18"})
    with pytest.raises(ValueError, match="remove `prefix`"):
        Pretext.model_validate({"task": task | {"prefix": "x"}})
    data = {"format": "synthetic", "subset": "objects", "num_images": 8}
    content: dict[str, Any] = {
        "datasets": {"a": data | {"split": "train"}, "b": data | {"split": "val"}},
        "pretexts": {"t": {"task": task, "backbone": BACKBONE}},
        "evaluations": {
            "e": {
                "protocol": {"name": "finetune-from-layer", "layers": ["output"]},
                "models": ["t"],
                "train": "a",
                "test": "b",
            }
        },
    }
    with pytest.raises(ConfigError, match="cannot be fine-tuned"):
        complete(content)
    content["evaluations"]["e"]["protocol"] = {"name": "knn"}
    assert list(complete(json.loads(json.dumps(content))).pretexts) == ["t"]
