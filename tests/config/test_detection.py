"""Configurations of detectors: validation and cost estimates."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from ssltransfer.config import Config, ConfigError, complete
from ssltransfer.config.protocols import FasterRcnn, FastRcnn
from ssltransfer.planning.costs import estimate
from ssltransfer.planning.machine import Machine

TEXT = """
datasets:
  voc-train: {format: voc, root: v, split: trainval, targets: boxes}
  voc-test: {format: voc, root: v, split: test, targets: boxes}
pretexts:
  net: {task: random, backbone: BACKBONE}
evaluations:
  det: {protocol: PROTOCOL, models: [net], baselines: [], train: voc-train, test: voc-test}
"""


def config(protocol: str, backbone: str, **changes: Any) -> Config:
    content = yaml.safe_load(TEXT.replace("PROTOCOL", protocol).replace("BACKBONE", backbone))
    for name, dataset in changes.items():
        content["datasets"][name.replace("_", "-")] = dataset
    return complete(content)


@pytest.mark.parametrize(("protocol", "backbone"), [("fast-rcnn", "caffenet"), ("faster-rcnn", "resnet18")])
def test_estimate_includes_detectors(protocol: str, backbone: str) -> None:
    costs = {cost.stage: cost for cost in estimate(config(protocol, backbone), Machine())}
    hours = costs["evaluate"].hours
    assert hours is not None and 0.1 < hours < 200


def test_faster_rcnn_requires_blocks() -> None:
    with pytest.raises(ConfigError, match=r"evaluations\.det\.models: model 'net' \(caffenet\) has no layer 'block3'"):
        config("faster-rcnn", "caffenet")


def test_detectors_require_boxes() -> None:
    plain = {"format": "voc", "root": "v", "split": "test"}
    with pytest.raises(ConfigError, match="fast-rcnn needs boxes of every image"):
        config("fast-rcnn", "caffenet", voc_test=plain)


def test_bg_iou_range_must_end_below_foreground() -> None:
    for background in ((0.5, 0.1), (0.1, 0.7)):
        with pytest.raises(ValidationError, match=r"must be ascending and end at 0\.5"):
            FastRcnn(bg_iou_range=background)
    assert FasterRcnn().bg_iou_range == (0, 0.5)


def test_proposals_accept_a_list_of_files() -> None:
    files = FastRcnn.model_validate({"proposals": ["a.mat", "b.mat"]}).proposals
    assert [file.path for file in files if not isinstance(file, str)] == ["a.mat", "b.mat"]
    with pytest.raises(ValidationError):
        FastRcnn.model_validate({"proposals": "edge-boxes"})
