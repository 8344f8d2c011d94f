"""Tests of config/README.md: its example is valid, its keys exist, its table lists the shipped files."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from ssltransfer.config import complete
from ssltransfer.config.entities import ConfigFile
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.sweeps import expand

CONFIG = Path(__file__).parents[2] / "config"
TEXT = (CONFIG / "README.md").read_text(encoding="utf-8")
EXAMPLE, SWEEP = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))


def test_example_is_a_valid_configuration() -> None:
    config = complete(EXAMPLE)
    assert set(config.students) >= {"student"}
    assert set(config.rows["neighbors"]) >= {"rotation", "student"}


def test_sweep_adds_an_entry_per_value() -> None:
    swept = {**EXAMPLE, "clusters": EXAMPLE["clusters"] | SWEEP["clusters"]}
    assert expand("clusters", SWEEP["clusters"]).keys() <= complete(swept).clusters.keys()


def test_readme_has_paragraph_per_section() -> None:
    assert re.findall(r"^\*\*`(\w+)`\*\*", TEXT, re.MULTILINE) == list(ConfigFile.model_fields)


def test_readme_explains_schedule_keys() -> None:
    keys = set(re.findall(r"`(\w+)`", TEXT.partition("### Schedules")[2].partition("### Sweeps")[0]))
    assert set(Schedule.model_fields) - {"version"} <= keys


def test_table_lists_the_shipped_files() -> None:
    assert sorted(re.findall(r"^\| \[(\S+)\]\(\1\)", TEXT, re.MULTILINE)) == sorted(
        path.relative_to(CONFIG).as_posix() for path in CONFIG.rglob("*.yaml")
    )
