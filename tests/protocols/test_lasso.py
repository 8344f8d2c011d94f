"""Evaluations whose head reads a mix of block3's units."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import ResNet101V2
from ssltransfer.config.base import ConfigError
from ssltransfer.config.load import complete
from ssltransfer.config.protocols import Depth, FasterRcnn, FrozenBlock3
from ssltransfer.models.build import build_backbone
from ssltransfer.models.layer_mix import MixedBackbone
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.protocols.depth import DepthTask
from ssltransfer.protocols.depth_errors import Median
from ssltransfer.protocols.detection.backbones import Res5Backbone, calibrate_bn
from ssltransfer.protocols.faster_rcnn import FasterRcnn as FasterRcnnTask
from ssltransfer.protocols.probes import ProbeTask
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit

CPU = Devices(torch.device("cpu"), 0)
OPTIONS = ResNet101V2(width_mult=0.125, img_size=32, stem_stride=1)
SCHEDULE = {"steps": 4, "batch_size": 8, "optimizer": "adam", "lr": 0.05}


@pytest.fixture(scope="module")
def model() -> PretrainedModel:
    backbone = build_backbone(OPTIONS, include_top=False).eval().requires_grad_(False)
    backbone.get_buffer("norm3.running_var").fill_(3.0)
    return PretrainedModel(backbone, "imagenet", "x", "m")


def head(model: PretrainedModel, lasso: float | None) -> ProbeTask:
    options = FrozenBlock3.model_validate({"l1_layer_mix": lasso, "pool": {"max": 2}, "schedule": SCHEDULE})
    return ProbeTask(model, options, 12, 0, "m")


def test_probe_trains_layer_mix_on_frozen_backbone(model: PretrainedModel, objects: Index, tmp_path: Path):
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    task = head(model, 1.0)
    assert task.mix is not None
    fit(task, objects, task.schedule, seed=0, folder=tmp_path, devices=CPU)
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    assert len(set(task.mix.rounded)) > 10 and sum(share**2 for share in task.mix.rounded) == pytest.approx(1, abs=1e-4)


def test_probe_mix_of_last_unit_equals_no_mix(model: PretrainedModel):
    mixed, plain = head(model, 0.1).eval(), head(model, None).eval()
    assert mixed.mix is not None and plain.mix is None
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        mixed.mix.v.zero_()[-1] = 2.0
        assert torch.equal(mixed.features(images), plain.features(images))
        mixed.mix.v[3] = 1.0
        assert not torch.equal(mixed.features(images), plain.features(images))


def test_depth_trains_layer_mix_and_backbone(model: PretrainedModel):
    options = Depth.model_validate({"l1_layer_mix": 0.5, "resize": [60, 80], "crop": [57, 76], "decoder_dim": 16})
    task = DepthTask(model, options, Median(2.0, 1.0), 0, "m")
    assert isinstance(task.backbone, MixedBackbone)
    task.predict(torch.randint(256, (2, 3, 57, 76), dtype=torch.uint8)).sum().backward()
    for name in ("mix.v", "base.conv1.weight"):
        gradient = task.backbone.get_parameter(name).grad
        assert gradient is not None and gradient.abs().max() > 0


def test_detector_reads_layer_mix(model: PretrainedModel):
    with torch.no_grad():
        plain, mixed = (Res5Backbone(model, "align", 0, mixed=flag) for flag in (False, True))
        assert mixed.mix is not None and isinstance(mixed.backbone, MixedBackbone)
        images = [torch.randn(1, 3, 64, 96) for _ in range(2)]
        settled = calibrate_bn(mixed, images)
        mean = mixed.mix.norm.get_buffer("running_mean")
        assert settled > 0 and not torch.equal(mean, torch.zeros_like(mean))
        mixed.mix.norm.load_state_dict(mixed.backbone.base.get_submodule("norm3").state_dict())
        mixed.mix.v.zero_()[-1] = 1.0
        plain.load_state_dict(
            {
                name.replace("backbone.base.", "backbone."): value
                for name, value in mixed.state_dict().items()
                if "mix" not in name
            }
        )
        x, boxes = images[0], torch.tensor([[4.0, 4, 40, 40]])
        maps = [body.eval()(x) for body in (plain, mixed)]
        assert torch.equal(*maps)
        found = [body.roi_features(one, boxes) for body, one in zip((plain, mixed), maps, strict=True)]
        assert torch.equal(*found)
    assert FasterRcnn(l1_layer_mix=0.1).l1_layer_mix == 0.1


def test_detector_reports_layer_mix(model: PretrainedModel):
    mixed, plain = (FasterRcnnTask(model, FasterRcnn(l1_layer_mix=strength), 20, 0) for strength in (0.1, None))
    assert mixed.details() == {"mix": [pytest.approx(23**-0.5, abs=1e-6)] * 23} and plain.details() == {}


def test_config_rejects_layer_mix_of_other_networks():
    world = {"format": "synthetic", "subset": "objects", "split": "train", "num_images": 8}
    content = {
        "datasets": {"d": world, "e": {**world, "split": "val"}},
        "pretexts": {"m": {"task": "random", "backbone": "resnet18"}},
        "evaluations": {
            "x": {
                "protocol": {"name": "frozen-block3", "l1_layer_mix": 0.1},
                "models": ["m"],
                "train": "d",
                "test": "e",
                "baselines": [],
            }
        },
    }
    with pytest.raises(ConfigError, match=r"evaluations.x.protocol.l1_layer_mix: m has no units of block3"):
        complete(content)
