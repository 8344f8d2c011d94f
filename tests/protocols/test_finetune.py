"""What is done to a model before it is fine-tuned: on the training images, by the seed, and through a protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import VocClassification
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.models.normalize import normalize
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.finetune import prepare_for_finetuning
from ssltransfer.protocols.voc_classification import MultiLabelFinetuneTask
from ssltransfer.stages.evaluate import run
from ssltransfer.training.devices import Devices
from tests.helpers.protocol_inputs import make_model, make_sets

CPU = Devices(torch.device("cpu"), 0)
NORMED = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2, bn=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("normed"), NORMED, seed=1)


@pytest.fixture(scope="module")
def images(chain) -> Index:
    return read_index(chain.train)


def ready(model: Path, images: Index, seed: int = 0, **options: bool) -> PretrainedModel:
    read = read_model(model)
    prepare_for_finetuning(read, VocClassification(**options), images, CPU, seed)
    return read


def test_prepare_changes_nothing_by_default(model: Path, images: Index) -> None:
    given, found = read_model(model).backbone.state_dict(), ready(model, images).backbone.state_dict()
    assert given.keys() == found.keys() and all(torch.equal(value, found[name]) for name, value in given.items())


def test_prepare_gives_channels_unit_variance(model: Path, images: Index) -> None:
    found = ready(model, images, fuse_bn=True, data_dependent_init=True)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in found.backbone.modules())
    views = load_batches(images, found.view, sequential_keys(range(len(images)), 60), seed=0)
    x = normalize(next(views).images, found.normalization)
    first = found.backbone.get_submodule("conv1")
    with torch.no_grad():
        values = first(x).transpose(0, 1).flatten(1)
    # All 60 images were drawn; the balance multiplies all channels of a layer alike.
    deviations = values.std(1)
    assert float(deviations.std() / deviations.mean()) < 1e-3
    assert float((values.mean(1) / deviations).abs().max()) < 1e-3


def test_prepare_depends_on_seed(model: Path, images: Index) -> None:
    some = images.subset(np.arange(40))
    one, again, other = (
        ready(model, some, seed, fuse_bn=True, data_dependent_init=True).backbone for seed in (3, 3, 4)
    )
    assert torch.equal(one.get_submodule("fc6").weight, again.get_submodule("fc6").weight)  # type: ignore[arg-type]
    assert not torch.equal(one.get_submodule("fc6").weight, other.get_submodule("fc6").weight)  # type: ignore[arg-type]


def test_prepare_keeps_frozen_layers(model: Path, images: Index) -> None:
    presence = np.ones((len(images), 3), np.int8)
    options = VocClassification(trainable="fc6-8", fuse_bn=True, data_dependent_init=True)
    read = read_model(model)
    task = MultiLabelFinetuneTask(read, "it", options, presence, 0)
    prepare_for_finetuning(replace(read, backbone=task.backbone), options, images, CPU, 0)
    weight = task.get_parameter("head.1.weight")
    assert float(weight.detach().std()) == pytest.approx(0.01, rel=0.1), "fc8 stays as it starts"
    learning = {name.split(".")[1] for name, p in task.named_parameters() if p.requires_grad}
    assert learning == {"fc6", "fc7", "1"}


def test_voc_classification_with_both_options(model: Path, tmp_path: Path) -> None:
    train, test = make_sets(tmp_path, "voc", {"trainval": 24, "test": 12}, 64)
    protocol = VocClassification(
        schedule=Schedule(steps=3, batch_size=8, lr=0.001), crops=1, fuse_bn=True, data_dependent_init=True
    )
    for name in ("one", "two"):
        run(
            EvaluationSpec(protocol=protocol, train="a", test="b"),
            model=model,
            train=train,
            test=test,
            output=tmp_path / name / "voc" / "m.json",
            threads=1,
        )
    assert (tmp_path / "one/voc/m.json").read_bytes() == (tmp_path / "two/voc/m.json").read_bytes()
    assert '"fuse_bn": true' in (tmp_path / "one/voc/m.json").read_text()
