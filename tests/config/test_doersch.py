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


def test_doersch_networks_get_equal_compute(config: Config):
    """16.8 thousand GPU-hours, of which each task of a network gets the same part (figures 3 and 4)."""
    hours = {"rp": 350, "col": 90, "ex": 60, "ms": 400}
    networks = {name: one for name, one in config.pretexts.items() if isinstance(one.task, MultiTask)}
    assert len(networks) == 12
    for name, pretext in networks.items():
        assert isinstance(pretext.task, MultiTask) and pretext.schedule is not None and pretext.schedule.steps
        tasks = pretext.task.tasks
        steps = sum(16_800 / len(tasks) / hours[task] * 1_281_167 / 64 for task in tasks)
        assert pretext.schedule.steps == pytest.approx(steps, rel=0.003), name
        if pretext.snapshots:
            sevenths = [part * pretext.schedule.steps / 7 for part in range(1, 7)]
            assert pretext.snapshots == pytest.approx(sevenths, rel=0.003), name
    (figure,) = config.report.figures
    models = ("rp", "col", "ex", "ms", "rp-col", "rp-ex", "rp-ms", "rp-col-ex", "all")
    assert {name for name in networks if networks[name].snapshots} == set(models)
    for model, points in zip(models, figure.lines.values(), strict=True):
        snapshots = [f"{model}@{step}" for step in config.pretexts[model].snapshots]
        assert list(points.values()) == [*snapshots, model]
        assert list(points) == pytest.approx([2.4 * part for part in range(1, 8)])


def test_doersch_labels_train_block4_for_the_detector(config: Config):
    backbone = config.students["imagenet-labels"].backbone
    assert backbone.layers[-2:] == ("block4", "pool")
    assert all("block4" not in one.backbone.layers for one in config.pretexts.values())


def test_doersch_videos_are_inputs_of_motion_tasks(config: Config):
    assert config.pretexts["all"].task_datasets == ("videos",) and config.pretexts["rp-col"].task_datasets == ()
    parts = config.pretexts["all"].parts
    assert parts["ms"].data == "videos" and parts["ms"].val is None and parts["rp"].val == "imagenet-val"


def test_doersch_small_is_valid():
    assert {"together@20", "together@40", "lasso"} <= set(read_config(CONFIG / "doersch2017_small.yaml").pretexts)
