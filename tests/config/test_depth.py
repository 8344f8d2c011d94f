"""Configurations of depth and of frozen block3: validation and cost estimates."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ssltransfer.config import Config, ConfigError, complete
from ssltransfer.planning.costs import estimate
from ssltransfer.planning.machine import Machine

BASE = """
datasets:
  rooms: {format: synthetic, subset: rgbd, split: train, num_images: 40, targets: depth}
  others: {format: nyu-depth-v2, root: nyu, split: test}
  plain: {format: synthetic, subset: rgbd, split: train, num_images: 40}
  a-train: {format: synthetic, subset: objects, split: train, num_images: 60}
  a-val: {format: synthetic, subset: objects, split: val, num_images: 60}
pretexts:
  res: {task: random, backbone: {name: resnet101-v2, block4: true}}
  caffe: {task: random, backbone: caffenet}
  hog: {task: hog, backbone: hog-words, data: a-train}
evaluations:
  depth: {protocol: depth, models: [res, caffe], train: rooms, test: others, baselines: [random]}
  frozen: {protocol: frozen-block3, models: [res], train: a-train, test: a-val}
"""


def completed(evaluation: str = "depth", **changes: Any) -> Config:
    content = yaml.safe_load(BASE)
    content["evaluations"][evaluation] |= changes
    return complete(content)


def test_depth_is_valid_and_has_a_cost() -> None:
    config = completed()
    assert config.model("res").layers == ("conv1", "block1", "block2", "block3", "block4", "pool")
    costs = {f"{cost.stage} {cost.name}": cost for cost in estimate(config, Machine())}
    for job in ("depth of res", "depth of caffe", "frozen of res"):
        hours = costs[f"evaluate {job}"].hours
        assert hours is not None and hours > 0


@pytest.mark.parametrize(
    ("evaluation", "changes", "said"),
    [
        ("depth", {"train": "plain"}, "depth needs depth of every image, which dataset 'plain' does not have"),
        ("depth", {"models": ["hog"]}, "evaluations.depth.models: hog (hog-words) has no weights and cannot be"),
        ("depth", {"protocol": {"name": "depth", "layer": "block5"}}, "has no layer 'block5'; did you mean 'block"),
        (
            "frozen",
            {"models": ["caffe"]},
            "frozen.protocol.layer: model 'caffe' (caffenet) has no layer 'block3'",
        ),
    ],
)
def test_depth_refuses_invalid_options(evaluation: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        completed(evaluation, **changes)
    assert said in str(refusal.value)
