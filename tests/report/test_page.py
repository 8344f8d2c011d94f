"""The page as a browser would take it: well-formed, whole in itself, escaped, and the same for the same inputs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.entities import Report, Table
from tests.helpers.html_page import Page


@pytest.fixture(scope="module")
def html(filled) -> str:
    return filled.report(name="page").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_page_is_well_formed_with_unique_ids(page: Page) -> None:
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_page_loads_nothing_external(html: str, page: Page) -> None:
    assert page.sources and all(source.startswith("data:") for source in page.sources)
    assert not re.findall(r"url\((?!#)", html)
    assert "@import" not in html
    assert page.scripts == 0


def test_page_links_resolve(page: Page) -> None:
    assert {unquote(link) for link in page.links} <= set(page.ids)


def test_page_graph_links_every_entry(filled, html: str) -> None:
    flow = html[html.index('<svg class="flow"') : html.index("</svg>")]
    titles = set(re.findall(r"<title>(.*?)</title>", flow))
    names = {path.parent.name for path in filled.inputs["models"] + filled.inputs["clusters"]}
    assert names | set(filled.indexes) | {"nn", "linear", "jig-conv4/objects.v1+x", "jig-k5/scenes_b"} <= titles


def test_page_images_have_alt_text(page: Page) -> None:
    assert page.images and all(image.get("alt") for image in page.images)


def test_page_escapes_class_names_and_reasons(html: str, page: Page) -> None:
    text = "".join(page.text)
    assert "</style><script>x()</script>" in text
    assert "<b>bold</b> & 'quoted'" in text
    assert "not an image" in text and "bad<.jpg" in text
    assert "<script>x()" not in html and "<b>bold</b>" not in html


def test_page_escapes_title(filled) -> None:
    spec = Report(title="</title><i>T</i> & \u00fc", montage_clusters=1, montage_images=1)
    text = filled.report(spec, name="title").read_text(encoding="utf-8")
    assert "<i>T" not in text and text.count("&lt;/title&gt;&lt;i&gt;T&lt;/i&gt; &amp; \u00fc") == 2


def test_page_is_deterministic(filled, html: str) -> None:
    again = filled.report(name="again")
    assert again.read_text(encoding="utf-8") == html
    page = again.parent.parent / "page"
    for name in ("summary.txt", "tables.csv"):
        assert again.with_name(name).read_bytes() == (page / name).read_bytes()


def test_page_write_leaves_no_temporary_file(filled, html: str) -> None:
    names = {path.name for path in (filled.root / "page").iterdir()}
    assert names == {"index.html", "summary.txt", "tables.csv"}


def test_page_survives_missing_run_json_and_images(filled, tmp_path: Path) -> None:
    copy = type(filled)(tmp_path / "copy")
    shutil.copytree(filled.root, copy.root)
    copy.inputs = {
        kind: [copy.root / path.relative_to(filled.root) for path in paths] for kind, paths in filled.inputs.items()
    }
    for run in [*copy.root.rglob("run.json"), *copy.root.rglob("*.run.json")]:
        run.unlink()
    gone = filled.root / "images"
    gone.rename(gone.with_name("elsewhere"))
    try:
        text = copy.report().read_text(encoding="utf-8")
    finally:
        gone.with_name("elsewhere").rename(gone)
    page = Page(text)
    assert "No run.json files were found." in text
    assert page.images and {unquote(link) for link in page.links} <= set(page.ids)


def test_page_of_empty_results(chain) -> None:
    text = chain.report().read_text(encoding="utf-8")
    assert Page(text).open == []
    assert set(Page(text).ids) == {"flow", "environment", "specs"}  # empty sections are omitted
    assert {link.strip("#") for link in Page(text).links} == {"flow", "environment", "specs"}


def test_page_refuses_wrong_input(filled, chain) -> None:
    chain.inputs["models"] = filled.inputs["clusters"]
    with pytest.raises(ArtifactError, match=r"jig-k5.*not a manifest of the pretext or student stage"):
        chain.report()
    assert not (chain.root / "report").exists()


def test_page_marks_unverified_references(filled) -> None:
    table = Table(
        title="VOC",
        columns=("nn",),
        reference="noroozi2018-table3",
        reference_rows={"cc-jig": "CC+HOG", "jigsaw++.a_b": "Jigsaw++"},
        reference_columns={"nn": "cls"},
    )
    text = filled.report(Report(tables=(table,), montage_clusters=1), name="marks").read_text(encoding="utf-8")
    cells = dict(re.findall(r">(jigsaw\+\+\.a_b|cc-jig)</a>.*?<td class=paper>(.*?)</td>", text, re.S))
    assert cells["cc-jig"] == '<span class="unverified" title="reported, unverified">70.2\u2020</span>'
    assert cells["jigsaw++.a_b"] == "69.8"
    assert "\u2020 reported, unverified" in text
