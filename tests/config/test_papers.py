"""The configurations of the papers have the papers' settings."""

from __future__ import annotations

from pathlib import Path

from ssltransfer.config import read_config
from ssltransfer.config.methods import CompressBatch
from ssltransfer.config.tasks import Imported

CONFIG = Path(__file__).resolve().parents[2] / "config"


def test_kolesnikov_decays_all_kernels_of_all_networks_alike():
    """The original's flags replace the default of its VGG19, 5e-4."""
    pretexts = read_config(CONFIG / "kolesnikov2019.yaml").pretexts
    schedules = {name: pretext.schedule for name, pretext in pretexts.items() if pretext.schedule}
    assert any(name.startswith("rotation-vgg19-bn") for name in schedules)
    assert {name for name, one in schedules.items() if one.weight_decay != 1e-4 or one.decay_norm_and_bias} == set()


def test_compress_imports_its_supervised_rows():
    config = read_config(CONFIG / "compress2020.yaml")
    supervised = {name: pretext.task for name, pretext in config.pretexts.items() if name.startswith("supervised-")}
    assert len(supervised) == 4 and all(isinstance(task, Imported) for task in supervised.values())
    assert not [name for name in config.students if name.startswith("supervised-")]


def test_compress_table6_has_no_network_trained_on_all_labels():
    """Its supervised row is trained on 1 % or 10 % of the labels alone."""
    config = read_config(CONFIG / "compress2020.yaml")
    (table,) = (table for table in config.report.tables if table.reference == "compress2020-table6")
    assert set(table.reference_rows.values()) == {"2q", "1q"} and set(table.rows) == set(table.reference_rows)
    for name in ("linear-01pct", "linear-10pct"):
        assert "supervised-resnet50" not in config.rows[name] and "2q-resnet50-x4" in config.rows[name]


def test_noroozi_has_rows_of_jigsaw_rescaled_context_and_layer_regression():
    config = read_config(CONFIG / "noroozi2018.yaml")
    rows = {
        (row, table.reference): model for table in config.report.tables for model, row in table.reference_rows.items()
    }
    assert [rows["Jigsaw", f"noroozi2018-table{number}"] for number in (3, 5, 6)] == ["jigsaw"] * 3
    assert rows["KD-Jigsaw++", "noroozi2018-table3"] == "kd-layers"
    assert {"jigsaw", "kd-layers"} <= set(config.rows["voc07-cls"])
    assert rows["Context*", "noroozi2018-table3"] == "context-drop"
    assert config.evaluations["voc07-cls-rescaled"].protocol.model_dump()["data_dependent_init"] is True


def test_compress_has_a_row_without_queue_and_softmax():
    config = read_config(CONFIG / "compress2020.yaml")
    (table,) = (one for one in config.report.tables if one.reference == "compress2020-table1-resnet18")
    (model,) = (model for model, row in table.reference_rows.items() if row == "No queue, no softmax")
    assert config.students[model].method == CompressBatch(teacher="moco")


def test_kolesnikov_figures_show_every_network_of_table1():
    config = read_config(CONFIG / "kolesnikov2019.yaml")
    *scatters, grid = config.report.figures
    shown = {model for figure in scatters for model in figure.patterns}
    # Random networks have no task, and exemplar has no accuracy.
    tables = [table for table in config.report.tables if table.reference == "kolesnikov2019-table1"]
    compared = {model for table in tables for model in table.reference_rows}
    assert shown == {model for model in compared if not model.startswith(("random", "exemplar"))}
    sizes = {
        (int(name), x): config.pretexts[model].backbone.model_dump()
        for name, points in grid.lines.items()
        for x, model in points.items()
    }
    assert len(sizes) == 20
    assert all(one["embed_dim"] == size and 4 * one["width_mult"] == x for (size, x), one in sizes.items())


def test_compress_table5_has_a_table_of_each_network():
    tables = {table.reference: table for table in read_config(CONFIG / "compress2020.yaml").report.tables}
    for network, least in (("alexnet", {"Supervised"}), ("resnet18", {"2q"}), ("resnet50", {"MoCo", "SwAV", "1q"})):
        assert least <= set(tables[f"compress2020-table5-{network}"].reference_rows.values())
