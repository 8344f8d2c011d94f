"""Random networks, as they start and rescaled by images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssltransfer.artifacts.index import read_index
from ssltransfer.config import ConfigError
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.entities import Pretext
from ssltransfer.config.formats import Synthetic
from ssltransfer.config.load import complete
from ssltransfer.config.tasks import RandomNetwork
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.stages.index import run as make_index
from ssltransfer.stages.pretext import run

BACKBONE = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2)


def made(folder: Path, **options: bool) -> PretrainedModel:
    data = folder / "index.parquet"
    make_index(
        Synthetic(subset="objects", split="train", num_images=40, size=64, root=str(folder / "world")),
        output=data,
        threads=1,
    )
    output = folder / "random" / "manifest.json"
    spec = Pretext(task=RandomNetwork(**options), backbone=BACKBONE, data="objects", seed=3)
    run(spec, output=output, data=data, threads=1)
    return read_model(output)


def test_random_network_depends_on_the_seed(tmp_path: Path) -> None:
    found, fresh = made(tmp_path).backbone.state_dict(), build_backbone(BACKBONE, include_top=True, seed=3).state_dict()
    assert found.keys() == fresh.keys() and all(torch.equal(found[name], fresh[name]) for name in found)


def test_random_network_data_dependent_init_equalizes_layers(tmp_path: Path) -> None:
    model = made(tmp_path, data_dependent_init=True)
    index = read_index(tmp_path / "index.parquet")
    (batch,) = load_batches(index, model.view, sequential_keys(range(40), 40), seed=0)
    before: dict[str, torch.Tensor] = {}
    for name in ("conv1", "conv3", "fc7"):
        model.backbone.get_submodule(name).register_forward_hook(
            lambda module, given, found, name=name: before.update({name: found.clone()})
        )
    model.layers_of(batch.images, ["fc7"])
    for name, values in before.items():
        channels = values.transpose(0, 1).flatten(1)
        deviation = channels.std(1)
        # The balance multiplies all channels of a layer alike; all 40 images were drawn.
        assert float(deviation.std() / deviation.mean()) < 0.02, name
        assert float((channels.mean(1) / deviation).abs().max()) < 0.02, name


def test_random_network_baseline_is_added() -> None:
    content = {
        "datasets": {
            name: {"format": "voc", "root": "v", "split": name, "year": "2007"} for name in ("trainval", "test")
        },
        "pretexts": {
            "mine": {"task": {"name": "imported", "file": "a.pth"}, "backbone": "caffenet"},
            "deep": {"task": {"name": "imported", "file": "b.pth"}, "backbone": "resnet18"},
        },
        "evaluations": {
            "cls": {
                "protocol": "voc-classification",
                "models": ["mine", "deep"],
                "baselines": ["rescaled"],
                "train": "trainval",
                "test": "test",
            }
        },
    }
    config = complete(content)
    assert config.rows["cls"] == ("mine", "deep", "rescaled-caffenet-trainval")
    assert config.pretexts["rescaled-caffenet-trainval"].data == "trainval"
    content["pretexts"]["wrong"] = {
        "task": {"name": "random", "data_dependent_init": True},
        "backbone": "resnet18",
        "data": "test",
    }
    with pytest.raises(ConfigError, match=r"pretexts\.wrong\.task\.data_dependent_init: resnet18 has shortcuts"):
        complete(content)
    with pytest.raises(ValueError, match="set `data`"):
        Pretext(task=RandomNetwork(data_dependent_init=True), backbone=BACKBONE)
