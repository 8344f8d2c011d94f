"""Figures that a configuration asks for."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from pydantic import ValidationError

from ssltransfer.config import ConfigError
from ssltransfer.config.entities import Figure, Report
from ssltransfer.report.figures import build_figures
from ssltransfer.report.load_results import Results, load_results

SWEEP = {"lines": {"students": {50: "jig*", 1000: "cc-jig"}}, "levels": {"random": "random-*"}, "log_x": True}


@pytest.fixture(scope="module")
def results(filled) -> Results:
    return load_results(**filled.inputs)


def figure(**given: object) -> Report:
    return Report(figures=(Figure.model_validate({"title": "Table 1: k", "columns": ["nn"], **given}),))


def test_figures_point_is_mean_and_sample_deviation_over_models(results: Results) -> None:
    (built,) = build_figures(figure(lines={"all": {1: "*jig*", 2: "random-*"}}), results)
    (panel,) = built.panels
    several, one = panel.lines["all"]
    values = [31.0, 35.25]
    assert (several.x, several.mean, several.std) == (1, np.mean(values), pytest.approx(np.std(values, ddof=1)))
    assert (one.x, one.mean, one.std) == (2, 20.0, 0.0)


def test_figures_over_layers_keep_the_order_of_the_network(results: Results) -> None:
    (built,) = build_figures(figure(columns=["linear"], layers={"students": "cc-*"}), results)
    (panel,) = built.panels
    assert list(panel.layers) == ["conv1", "conv2", "conv3"]
    assert [point.mean for point in panel.lines["students"]] == [35.25] * 3


def test_figures_scatter_reads_x_from_another_metric_or_the_training(results: Results) -> None:
    lines = {"all": {2: "*jig*", 1: "supervised-*"}}
    (built,) = build_figures(figure(lines=lines, against="linear:conv1"), results)
    (panel,) = built.panels
    one, several = panel.lines["all"]
    assert panel.x == "linear:conv1, %" and (one.label, several.label) == ("1", "2")
    assert (one.x, one.mean, one.x_std) == (61.0, 61.0, 0.0)
    assert (several.x, several.mean) == (pytest.approx(33.125), pytest.approx(33.125))
    assert several.x_std == pytest.approx(np.std([31.0, 35.25], ddof=1))
    (built,) = build_figures(figure(lines=lines, against="training:val_accuracy"), results)
    (panel,) = built.panels
    assert panel.x == "val accuracy of the training, %" and [p.x for p in panel.lines["all"]] == [pytest.approx(10)] * 2


@pytest.mark.parametrize(
    ("against", "message"),
    [
        ("training:val_accurcy", "the training of cc-jig has no 'val_accurcy'; did you mean 'val_accuracy'"),
        ("linear:conv9", "linear has no value 'conv9'"),
        ("mm", "no result of mm for 'cc-jig'"),
    ],
)
def test_figures_scatter_names_what_is_missing(results: Results, against: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_figures(figure(lines={"a": {1: "cc-jig"}}, against=against), results)


def test_figures_heat_map_has_a_row_per_line_and_a_column_per_number(chain) -> None:
    chain.dataset("d", classes=["a", "b"])
    lines: dict[str, dict[int, str]] = {"1024": {}, "512": {}}
    for row, x, value in (("1024", 4, 71.5), ("1024", 1, 62.5), ("512", 1, 53.5)):
        lines[row][x] = f"{row}-{x}"
        chain.model(f"{row}-{x}", "student", {"method": {"name": "supervised"}, "data": "d"}, trained=False)
        chain.measure("nn", f"{row}-{x}", {"accuracy": [value]})
    page = chain.report(figure(lines=lines, heat_map=True, x="width", y="size")).read_text(encoding="utf-8")
    drawn = ET.parse(chain.root / "report" / "figures" / "table-1-k.svg")
    shown = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert set(shown) == {"1", "4", "width", "1024", "512", "size", "71.5", "62.5", "53.5", "nn, %"}
    assert shown.index("512") < shown.index("1024") and shown.index("53.5") < shown.index("62.5") < shown.index("71.5")
    assert ">71.5<" in page


def test_figures_are_files_of_their_own(chain) -> None:
    chain.dataset("d", classes=["a", "b"])
    for k in (50, 100):
        chain.model(f"cc-k{k}", "student", {"method": {"name": "supervised"}, "data": "d"}, trained=False)
        chain.measure("nn", f"cc-k{k}", {"accuracy": [k / 2]})
    spec = figure(lines={"a<b": {50: "cc-k50", 100: "cc-k100"}}, x="clusters")
    page = chain.report(spec).read_text(encoding="utf-8")
    path = chain.root / "report" / "figures" / "table-1-k.svg"
    drawn = ET.parse(path)
    shown = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"a<b", "clusters", "nn, %", "50", "100"} <= shown
    assert "var(--" not in path.read_text(encoding="utf-8")
    assert "figures/table-1-k.svg" in page
    first = path.read_bytes()
    chain.report(spec)
    assert path.read_bytes() == first


def test_figures_of_similar_titles_have_files_of_their_own(results: Results) -> None:
    titles = ("Figure 1", "figure: 1", "Figure-1", "\u56fe")
    figures = tuple(Figure(title=title, columns=("nn",), lines={"a": {1: "cc-jig"}}) for title in titles)
    files = [built.file for built in build_figures(Report(figures=figures), results)]
    assert files == ["figure-1", "figure-1-2", "figure-1-3", "figure"]


def test_figures_name_what_has_no_results(results: Results) -> None:
    with pytest.raises(ConfigError, match=r"report.figures: 'Table 1: k': no result of nn matches 'cc-jog'"):
        build_figures(figure(lines={"a": {1: "cc-jog"}}), results)
    with pytest.raises(ConfigError, match="no evaluation named 'mm' has results"):
        build_figures(figure(columns=["mm"], **SWEEP), results)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"lines": {"a": {1: "m"}}, "layers": {"a": "m"}},
        {"layers": {"a": "m"}, "log_x": True},
        {"layers": {"a": "m"}, "against": "nn"},
        {"lines": {"a": {1: "m"}}, "heat_map": True, "against": "nn"},
        {"lines": {"a": {1: "m"}}, "heat_map": True, "levels": {"l": "m"}},
    ],
)
def test_figures_have_one_kind_of_axis(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="Table 1: k"):
        figure(**given)


def test_figures_of_several_columns_have_a_panel_each(filled) -> None:
    spec = figure(columns=["nn", "linear", "linear:conv2", "linear:conv1"], **SWEEP)
    built = build_figures(spec, load_results(**filled.inputs))[0]
    assert [panel.title for panel in built.panels] == ["nn", "linear", "linear:conv2", "linear:conv1"]
    filled.report(spec, "several")
    assert (filled.root / "several" / "figures" / "table-1-k.svg").exists()
