"""Tables, the papers' numbers beside them, and the summary in words."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from ssltransfer.config import ConfigError
from ssltransfer.config.entities import Report, Table
from ssltransfer.config.references import references
from ssltransfer.report.load_results import Results, load_results
from ssltransfer.report.summary import summary
from ssltransfer.report.tables import as_text, build_tables


@pytest.fixture(scope="module")
def results(filled) -> Results:
    return load_results(**filled.inputs)


def table(**given: object) -> Report:
    return Report(tables=(Table(title="T", **{"columns": ("nn",), **given}),))


def test_tables_default_covers_all_models_and_evaluations(results: Results) -> None:
    (built,) = build_tables(Report(), results)
    assert [column.key for column in built.columns] == ["nn", "linear"]
    assert {row.model for _, _, rows in built.groups for row in rows} == set(results.models)


def test_tables_separate_baselines_from_best(results: Results) -> None:
    (built,) = build_tables(Report(), results)
    assert [kind for _, kind, _ in built.groups] == ["supervised", "learned", "random"]
    best = {row.model for _, _, rows in built.groups for row in rows if row.cells[0].best}
    assert best == {"cc-jig"}


def test_tables_note_when_random_network_is_best(chain) -> None:
    chain.dataset("d", classes=["a", "b"])
    chain.model("m", "pretext", {"task": {"name": "rotation"}, "data": "d"}, trained=False)
    chain.model("random", "pretext", {"task": {"name": "random"}}, trained=False)
    for model, value in (("m", 10.0), ("random", 12.0)):
        chain.measure("e", model, {"accuracy": [value]})
    found = load_results(**chain.inputs)
    (built,) = build_tables(Report(), found)
    assert [row.model for _, _, rows in built.groups for row in rows if row.cells[0].best] == ["random"]
    assert (
        "m reaches 10.0 %, compared with chance level 10.0 and the best random network 12.0 (2.0 higher)."
        in " ".join(summary(found))
    )


def test_baselines_alone_have_no_best_model(chain) -> None:
    """Beside a student of published weights a star on a random network would say that it is the best one."""
    chain.dataset("d", classes=["a", "b"])
    chain.model("teacher", "pretext", {"task": {"name": "imported", "file": "w.pth"}}, trained=False)
    for model in ("random", "other"):
        chain.model(model, "pretext", {"task": {"name": "random"}}, trained=False)
    for model, value in (("teacher", 90.0), ("random", 12.0), ("other", 11.0)):
        chain.measure("e", model, {"accuracy": [value]})
    (built,) = build_tables(Report(), load_results(**chain.inputs))
    assert not built.has_best
    assert as_text([built]).splitlines()[-1] == "in %"


@pytest.mark.parametrize(
    ("labels", "teacher", "student", "best"),
    [
        (None, "unranked", "unranked", "m"),
        (True, "supervised", "unranked", "m"),
        (False, "learned", "learned", "imported"),
    ],
)
def test_tables_do_not_rank_imported_weights(chain, labels: bool | None, teacher: str, student: str, best: str) -> None:
    """Unless they are said to be without labels; so for students, by features or clusters, and snapshots."""
    chain.dataset("d", classes=["a", "b"])
    task = {"name": "imported", "file": "w.pth"} | ({} if labels is None else {"labels": labels})
    chain.model("imported", "pretext", {"task": task}, trained=False)
    chain.model("m", "pretext", {"task": {"name": "rotation"}, "data": "d"}, trained=False)
    chain.model("s", "student", {"method": {"name": "regression", "teacher": "imported"}, "data": "d"})
    chain.model("s2", "student", {"method": {"name": "regression", "teacher": "s"}, "data": "d"})
    further = {"name": "feature-distillation", "teacher": "m", "further_teachers": [{"teacher": "imported"}]}
    chain.model("two", "student", {"method": further, "data": "d"}, trained=False)
    assert load_results(**chain.inputs).kind("two") == student
    chain.feature("f", "d", "imported")
    chain.cluster("k", "f", "d")
    chain.model("c", "student", {"method": {"name": "cluster-classification", "cluster": "k"}, "data": "d"})
    for model, value in (("imported", 90.0), ("m", 50.0), ("s", 80.0), ("c", 70.0)):
        chain.measure("e", model, {"accuracy": [value]})
    found = load_results(**chain.inputs)
    kinds = {name: found.kind(name) for name in found.models}
    assert kinds == {"imported": teacher, "m": "learned", "s": student, "s2": student, "two": student, "c": student}
    (built,) = build_tables(Report(), found)
    starred = [row.model for _, _, rows in built.groups for row in rows if row.cells[0].best]
    assert starred == ([best] if labels is False else [])
    taught = {None: "90.0 (40.0 higher)", True: "80.0 (30.0 higher)", False: None}[labels]
    about = summary(found)[1]
    assert about.startswith(f"Under e, {'m' if taught else 'the best of 4 models, imported,'} reaches")
    assert ("imported or of an imported or supervised teacher" in about) == bool(taught)
    assert taught is None or about.endswith(f"teacher {taught}.")
    if labels is None:
        assert [title for title, _, _ in built.groups][1].startswith("Imported weights")
        assert "5 models imported or of an imported or supervised teacher" in summary(found)[0]


def test_tables_std_is_sample_deviation_over_seeds(filled, results: Results) -> None:
    values = [35.25 + 2, 35.25 - 2]
    (built,) = build_tables(table(columns=("linear:conv2",), rows=("cc-*",)), results)
    ((_, _, (row,)),) = built.groups
    assert row.cells[0].mean == pytest.approx(np.mean(values))
    assert row.cells[0].std == pytest.approx(np.std(values, ddof=1))
    assert row.cells[0].text == "35.2 \u00b1 2.8"


def test_tables_group_seeds_of_a_model(chain) -> None:
    """Of two seeds each, one of them measured twice: the spread is that of trainings, not of measurements."""
    chain.dataset("d", classes=["a", "b"])
    values = {"a-s0": [10.0, 14.0], "b-s0": [30.0], "a-s1": [20.0], "b-s1": [37.0], "alone": [33.0]}
    for model, measured in values.items():
        chain.model(model, "pretext", {"task": {"name": "rotation"}, "data": "d"}, trained=False)
        chain.measure("e", model, {"accuracy": measured})
    found = load_results(**chain.inputs)
    aggregate = {"a": "a-s*", "b": "b-s?"}
    tables = build_tables(table(columns=("e",), aggregate=aggregate), found)
    ((_, _, rows),) = tables[0].groups
    assert sorted((row.model, row.models) for row in rows) == [("a", 2), ("alone", 1), ("b", 2)]
    cells = {row.model: row.cells[0] for row in rows}
    for row, numbers in (("a", [12, 20]), ("b", [30, 37])):
        assert cells[row].mean == pytest.approx(np.mean(numbers)) and cells[row].seeds == 2
        assert cells[row].std == pytest.approx(np.std(numbers, ddof=1))
    assert [row for row in cells if cells[row].best] == ["b"]
    assert "a (2 models)  16.0 \u00b1 5.7" in as_text(tables)
    (one,) = build_tables(table(columns=("e",), rows=("a-s0",), aggregate=aggregate), found)
    assert one.groups[0][2][0].cells[0].text == "12.0 \u00b1 2.8"  # alone in its row: its own seeds


def test_csv_contains_all_numbers(filled) -> None:
    output: Path = filled.report(name="csv")
    rows = list(csv.DictReader(output.with_name("tables.csv").open(encoding="utf-8")))
    assert len(rows) == 8
    found = {(row["model"], row["column"]): row for row in rows}
    assert float(found["cc-jig", "nn"]["mean"]) == 35.25 and found["cc-jig", "nn"]["std"] == ""
    assert found["cc-jig", "linear"]["seeds"] == "2" and float(found["cc-jig", "linear"]["chance"]) == 10
    assert found["random-caffenet", "nn"]["kind"] == "random"


def test_terminal_table_has_models_as_rows(results: Results) -> None:
    lines = as_text(build_tables(Report(), results)).splitlines()
    assert lines[0].split()[-2:] == ["nn", "linear"]
    row = next(line for line in lines if line.startswith("cc-jig"))
    assert row.split() == ["cc-jig", "35.2*", "35.2", "\u00b1", "4.2*"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"columns": ("linea",)}, "no evaluation named 'linea' has results; did you mean 'linear'"),
        ({"columns": ("linear:conv9",)}, "no value 'conv9'; did you mean 'conv"),
        ({"rows": ("cc-jgi",)}, "'cc-jgi'; did you mean 'cc-jig'"),
        ({"reference": "noroozi2018-table33"}, "no reference is called 'noroozi2018-table33'; did you mean 'noroozi"),
        (
            {"reference": "noroozi2018-table3", "reference_rows": {"cc-jig": "CC+Jigsaw+"}},
            "no row 'CC+Jigsaw+'; did you mean 'CC+Jigsaw++'",
        ),
        (
            {"reference": "noroozi2018-table3", "reference_columns": {"nn": "clss"}},
            "no column 'clss'; did you mean 'cls'",
        ),
        ({"reference": "noroozi2018-table3", "reference_columns": {"n": "cls"}}, "no column of this table: 'n'"),
        ({"reference_columns": {"nn": "cls"}}, "need `reference`"),
    ],
)
def test_tables_suggest_nearest_name(filled, given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        filled.report(table(**given), name="refused")
    assert says in str(caught.value)
    assert not (filled.root / "refused").exists()


def test_tables_keep_reference_columns_apart(results: Results) -> None:
    spec = table(
        columns=("nn", "linear:conv1", "linear:conv3"),
        reference="noroozi2018-table4",
        reference_rows={"cc-jig": "CC+Jigsaw++"},
        reference_columns={"linear:conv3": "conv3"},
    )
    (built,) = build_tables(spec, results)
    assert [column.paper for column in built.paired] == ["conv3"]
    rows = {row.model: row for _, _, group in built.groups for row in group}
    assert len(rows["cc-jig"].cells) == 3
    assert [value and value.text for value in rows["cc-jig"].paper] == ["35.7"]
    assert rows["jigsaw++.a_b"].paper == (None,)


def test_references_are_complete_and_have_provenance() -> None:
    assert {f"noroozi2018-table{i}" for i in range(1, 7)} <= set(references())
    for reference in references().values():
        assert reference.source and reference.title and reference.unit
        for row, values in reference.rows.items():
            assert len(values) == len(reference.columns), (reference.name, row)
            for column, value in zip(reference.columns, values, strict=True):
                assert value is None or value.provenance
                if value and not column.endswith("-layer"):
                    assert 0 < float(value.text.split(" ± ")[0]) < 100


@pytest.mark.parametrize(
    ("name", "row", "column", "text", "provenance"),
    [
        ("noroozi2018-table3", "CC+vgg-Jigsaw++", "cls", "72.5", "verified"),
        ("noroozi2018-table3", "Jigsaw++", "cls", "69.8", "verified"),
        ("noroozi2018-table3", "CC+HOG", "cls", "70.2", "recalled"),
        ("noroozi2018-table3", "Split-Brain", "seg", "36.0", "second"),
        ("noroozi2018-table4", "CC+vgg-Jigsaw++", "conv3", "37.3", "second"),
        ("noroozi2018-table5", "CC+vgg-Jigsaw++", "conv3", "37.5", "second"),
        ("noroozi2018-table1", "k=2000", "cls", "69.9", "recalled"),
        ("noroozi2018-table3", "KD-Jigsaw++", "cls", "58.5", "verified"),
        ("compress2020-table1-alexnet", "2q", "nn", "48.4", "verified"),
        ("compress2020-table1-resnet18", "MoCo", "nn", "41.1", "verified"),
        ("compress2020-table3", "Reg-BN", "one-shot", "21.5 ± 0.1", "verified"),
        ("compress2020-table5-alexnet", "InstDisc", "imagenet-layer", "conv5", "verified"),
        ("compress2020-table5-alexnet", "1q", "places-layer", "conv5", "verified"),
        ("compress2020-table5-resnet18", "MoCo", "imagenet", "54.5", "verified"),
        ("compress2020-table5-resnet50", "CF-RotNet", "imagenet-layer", "L4", "verified"),
        ("doersch2017-table2", "RP+Col+Ex+MS", "voc07-75", "43.91", "verified"),
    ],
)
def test_references_match_published_numbers(name: str, row: str, column: str, text: str, provenance: str) -> None:
    value = references()[name].value(row, column)
    assert value is not None and (value.text, value.provenance) == (text, provenance)


def test_tables_best_error_is_lowest_with_unit(chain) -> None:
    chain.dataset("d")
    for model, d1, mae in (("near", 70.0, 0.4126), ("far", 60.0, 0.6)):
        chain.model(model, "pretext", {"task": {"name": "rotation"}, "data": "d"}, trained=False)
        chain.measure("rooms", model, {"d1": [d1], "mae": [mae], "rel": [mae / 3]}, protocol={"name": "depth"})
    spec = Report(tables=(Table(title="T", columns=("rooms", "rooms:mae", "rooms:rel")),))
    (built,) = build_tables(spec, load_results(**chain.inputs))
    rows = {row.model: row.cells for _, _, group in built.groups for row in group}
    assert [cell.best for cell in rows["near"]] == [True, True, True] and not any(cell.best for cell in rows["far"])
    assert [cell.text for cell in rows["near"]] == ["70.0", "0.413", "0.138"]
    assert [(column.unit, column.common_unit, column.lower_is_better) for column in built.columns] == [
        ("%", "%", False),
        ("m", "%", True),
        ("", "%", True),
    ]
    assert "in %, m; * best model without labels" in as_text([built])
