"""Long names: no table, figure or line of text cuts them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssltransfer.config.entities import Figure, Report, Table
from ssltransfer.report.text import wrap

RESULTS = ("dataset", "model", "baseline", "student", "features", "cluster", "evaluation", "probe")
OTHERS = ("class", "layer", "series", "lines", "level", "title", "table", "figure", "skipped", "note")


def names(kind: str) -> list[str]:
    """Three names of 80 characters: the second differs from the first at its end, the third in the middle."""
    name = (f"{kind}-" + "0123456789" * 8)[:80]
    return [name, name[:79] + "x", name[:45] + "x" + name[46:]]


class Shown(HTMLParser):
    """All text of a page, with that of its images and figures, joined without separators of lines."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        shown = [value or "" for key, value in attrs if key in ("alt", "title", "aria-label")]
        self.text += "".join(f"|{value}|" for value in shown) + ("" if tag in ("text", "svg", "g") else "|")

    def handle_data(self, data: str) -> None:
        self.text += data.strip()


def check_uncut(text: str, kinds: tuple[str, ...]) -> None:
    """Every name occurs, and nothing looks like a part of one."""
    for kind in kinds:
        beginnings = [match.start() for match in re.finditer(f"{kind}-0", text)]
        assert {text[start : start + 80] for start in beginnings} == set(names(kind)), kind
    assert "\u2026" not in text


@given(st.text(min_size=1), st.integers(2, 30))
def test_wrap_loses_no_character(name: str, width: int) -> None:
    lines = wrap(name, width)
    assert "".join(lines) == name
    assert all(0 < len(line) <= width for line in lines)


def test_wrap_breaks_after_separators() -> None:
    assert wrap("jigsaw-kolesnikov-resnet50-v2-w1", 24) == ["jigsaw-kolesnikov-", "resnet50-v2-w1"]
    assert wrap("rotation-resnet18-w0.125", 21) == ["rotation-resnet18-", "w0.125"]
    assert wrap("rotation-revnet50", 24) == ["rotation-revnet50"]


@pytest.fixture
def long_names(chain) -> Path:
    """A report in which everything with a name has three long ones."""
    for dataset in names("dataset"):
        chain.dataset(dataset, classes=names("class"), **dict.fromkeys(names("skipped"), "not an image"))
    data = names("dataset")[0]
    for model, baseline in zip(names("model"), names("baseline"), strict=True):
        chain.model(model, "pretext", {"task": {"name": "jigsaw++"}, "data": data})
        chain.model(baseline, "pretext", {"task": {"name": "random"}}, trained=False)
    for features, cluster, student in zip(names("features"), names("cluster"), names("student"), strict=True):
        chain.feature(features, data, names("model")[0])
        chain.cluster(cluster, features, data)
        chain.label(cluster, data)
        method = {"name": "cluster-classification", "cluster": cluster}
        chain.model(student, "student", {"method": method, "data": data})
    line = {"x": "x", "y": "y", "series": dict.fromkeys(names("series"), ([1], [2]))}
    details = {
        "classes": names("class"),
        "per_class": dict.fromkeys(names("class"), 20.0),
        "confusion": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "lines": [line | {"title": title} for title in names("title")],
        **dict.fromkeys(names("note"), "value"),
    }
    for kind in ("model", "baseline", "student"):
        for evaluation, probe in zip(names("evaluation"), names("probe"), strict=True):
            for model in names(kind):
                chain.measure(evaluation, model, {"accuracy": [20.0]}, details=details)
                layers = {layer: [20.0] for layer in names("layer")}
                chain.measure(probe, model, {"best": [20.0], **layers}, details={"layers": names("layer")})
    lines = {line: {1: names("model")[0]} for line in names("lines")}
    levels = dict.fromkeys(names("level"), names("baseline")[0])
    figures = [Figure(title=t, columns=tuple(names("evaluation")), lines=lines, levels=levels) for t in names("figure")]
    given = {"title": "more", "columns": names("evaluation"), "lines": lines}
    figures += [Figure(**given, heat_map=True), Figure(**given, against=names("probe")[2])]
    columns = (*names("evaluation"), *names("probe"))
    return chain.report(
        Report(tables=tuple(Table(title=t, columns=columns) for t in names("table")), figures=tuple(figures))
    )


def test_long_names_are_shown_in_full(long_names: Path) -> None:
    check_uncut(Shown(long_names.read_text("utf-8")).text, RESULTS + OTHERS)
    for name in ("summary.txt", "tables.csv"):
        check_uncut(
            long_names.with_name(name).read_text("utf-8"),
            ("model", "baseline", "student", "evaluation", "probe", "table"),
        )
    drawings = list(long_names.parent.glob("figures/*.svg"))
    assert {"more", "more-2"} < {drawing.stem for drawing in drawings} and len(drawings) == 5
    for drawing in drawings:
        text = "".join(element.text or "" for element in ET.parse(drawing).iter("{http://www.w3.org/2000/svg}text"))
        check_uncut(text, ("lines", "evaluation") if "more" in drawing.stem else ("lines", "level", "evaluation"))
