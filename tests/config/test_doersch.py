"""config/doersch2017.yaml says what the paper ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssltransfer.config import Config, read_config
from ssltransfer.config.references import references
from ssltransfer.config.tasks import MultiTask

CONFIG = Path(__file__).resolve().parents[2] / "config"


@pytest.fixture(scope="module")
def config() -> Config:
    return read_config(CONFIG / "doersch2017.yaml")


def test_doersch_has_every_combination_of_the_tables(config: Config):
    found = {
        name: "+".join(pretext.task.tasks)
        for name, pretext in config.pretexts.items()
        if isinstance(pretext.task, MultiTask) and name not in ("rp-h", "rp-col-h", "all-lasso")
    }
    assert sorted(found.values()) == [
        *("col", "col+ex+ms+rp", "col+ex+rp", "col+rp"),
        *("ex", "ex+rp", "ms", "ms+rp", "rp"),
    ]
    tables = {table.reference for table in config.report.tables if table.reference}
    assert tables == {name for name in references() if name.startswith("doersch2017-")}
    for table in config.report.tables:
        if table.reference and "4" not in table.title and "5" not in table.title:
            assert set(table.reference_rows.values()) == set(references()[table.reference].rows)


def test_doersch_tasks_get_equal_compute(config: Config):
    task = config.pretexts["all"].task
    assert isinstance(task, MultiTask)
    shares = task.task_weights(dict.fromkeys(task.tasks, 64))
    costs = {"rp": 350, "col": 90, "ex": 60, "ms": 400}
    assert [round(shares[name] * 64 * cost, 6) for name, cost in costs.items()] == [1, 1, 1, 1]


def test_doersch_videos_are_inputs_of_motion_tasks(config: Config):
    assert config.pretexts["all"].task_datasets == ("videos",) and config.pretexts["rp-col"].task_datasets == ()
    parts = config.pretexts["all"].parts
    assert parts["ms"].data == "videos" and parts["ms"].val is None and parts["rp"].val == "imagenet-val"


def test_doersch_small_is_valid():
    assert {"together@20", "together@40", "lasso"} <= set(read_config(CONFIG / "doersch2017_small.yaml").pretexts)
