"""The JSON Schema of configurations: it accepts what is valid, and finds what an editor should mark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from ssltransfer.config.json_schema import json_schema

CONFIG = Path(__file__).parents[2] / "config"
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
GOOD = {
    "datasets": {"d": {"format": "folder", "root": "x", "exclude": "list.txt"}},
    "pretexts": {
        "p-s{seed}": {"for": {"seed": [0, 1]}, "task": "rotation", "seed": "{seed}"},
        "own": {"task": {"name": "imported", "file": "w.pth"}, "backbone": "resnet18"},
        "dino": {"task": {"name": "pretrained", "weights": "timm/resnet18"}},
    },
    "clusters": None,
}


def test_shipped_configurations_name_and_satisfy_the_schema() -> None:
    files = list(CONFIG.rglob("*.yaml"))
    for file in files:
        head, _, text = file.read_text("utf-8").partition("\n")
        named = head.removeprefix("# yaml-language-server: $schema=")
        assert (file.parent / named).resolve() == CONFIG / "schema.json", file
        VALIDATOR.validate(yaml.safe_load(text))
    assert len(files) > 15


def test_shipped_schema_is_that_of_the_code() -> None:
    """Renew it with `ssltransfer schema > config/schema.json`."""
    assert json.loads((CONFIG / "schema.json").read_text("utf-8")) == json_schema()


def test_schema_accepts_names_sweeps_and_paths() -> None:
    VALIDATOR.validate(GOOD)


@pytest.mark.parametrize(
    ("section", "name", "entry"),
    [
        ("pretext", "p", {}),
        ("pretexts", "p", {"task": "rotatoin", "backbone": "resnet18"}),
        ("pretexts", "p", {"task": "rotation", "backbone": "resnet18", "shedule": {}}),
        ("pretexts", "p", {"task": "rotation", "backbone": {"name": "resnet18", "widht": 1}}),
        ("pretexts", "p", {"task": "rotation", "backbone": "resnet18", "schedule": {"epochs": "many"}}),
        ("datasets", "d", {"format": "floder", "root": "x"}),
        ("datasets", "d", {"format": "folder"}),
        ("report", "tabels", []),
    ],
)
def test_schema_finds_errors(section: str, name: str, entry: Any) -> None:
    assert not VALIDATOR.is_valid({**GOOD, section: {name: entry}})
