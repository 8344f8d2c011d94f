"""`--set`: options of a stage by hand give the spec that a configuration gives."""

from __future__ import annotations

import json

import pytest

from ssltransfer.config import ConfigError
from ssltransfer.config.entities import Pretext
from ssltransfer.config.overrides import with_options

SPEC = {"task": {"name": "rotation", "hidden_dim": 64}, "backbone": "resnet18", "data": "d", "schedule": {"steps": 5}}


@pytest.mark.parametrize(
    "options",
    [
        ["task=rotation", "task.hidden_dim=64", "backbone=resnet18", "data=d", "schedule.steps=5"],
        ["task={name: rotation, hidden_dim: 64}", "backbone.name=resnet18", "data=d", "schedule={steps: 5}"],
        [
            "task=jigsaw",
            "task={name: rotation}",
            "task.hidden_dim=64",
            "backbone=resnet18",
            "data=d",
            "schedule.steps=5",
        ],
    ],
)
def test_options_alone_are_a_spec(options: list[str]) -> None:
    given = with_options(None, options)
    assert given is not None
    assert Pretext.parse(given).canonical() == Pretext.model_validate(SPEC).canonical()


def test_options_replace_those_of_a_spec() -> None:
    text = json.dumps(SPEC)
    assert with_options(text, []) == text and with_options(None, []) is None
    changed = with_options(text, ["schedule.lr=1e-3", "backbone.img_size=64", "schedule.milestones=[1, 2]"])
    assert changed is not None
    spec = Pretext.parse(changed)
    assert spec.schedule is not None and (spec.schedule.lr, spec.schedule.milestones) == (0.001, (1, 2))
    assert spec.backbone.img_size == 64 and spec.backbone.name == "resnet18"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("lr", "write KEY=VALUE"),
        ("=3", "write KEY=VALUE"),
        ("schedule..lr=3", "write KEY=VALUE"),
        ("schedule.steps.lr=3", "--set schedule.steps.lr=3: steps is 5 and has no options"),
        ("schedule={", "the value is not YAML"),
    ],
)
def test_wrong_options_are_one_sentence(option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_options(json.dumps(SPEC), [option])
