"""The documentation as a site: every page, option and name of the Python interface is in it, and every link holds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import ssltransfer
from ssltransfer.cli import KINDS, listed
from tests.helpers.workflow import ROOT


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "tools" / "docs_site.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_lead_to_places_in_the_site(tool: ModuleType) -> None:
    text = "[a](docs/use.md#python) [b](config/README.md) ![c](docs/images/report.png) [d](https://e.org) [e](#x)"
    moved = "[a](use.md#python) [b](config/README.md) ![c](images/report.png) [d](https://e.org) [e](#x)"
    assert tool.relinked(text, ROOT / "README.md") == moved
    assert tool.relinked("[a](../README.md) [b](own_images.yaml)", ROOT / "config/README.md") == (
        "[a](../index.md) [b](../config/own_images.yaml)"
    )
    assert tool.relinked("[a](../config/compress.yaml)", ROOT / "docs/compress.md") == "[a](config/compress.yaml)"


def test_every_page_has_a_place(tool: ModuleType, tmp_path: Path) -> None:
    tool.lay_out(tmp_path)
    listed_pages = {f"{page}.md" for pages in tool.CHAPTERS.values() for page in pages} | {"index.md"}
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.md")} == listed_pages


@pytest.mark.slow
def test_site_is_built_without_a_warning(tool: ModuleType, tmp_path: Path) -> None:
    assert tool.build(tmp_path) == 0
    html = {
        path.relative_to(tmp_path / "html").as_posix(): path.read_text("utf-8")
        for path in (tmp_path / "html").rglob("*.html")
    }
    for kind in KINDS:
        text = re.sub(r"<[^>]+>", "", html[f"reference/{kind}.html"])
        for entry, (name, _, _) in zip(KINDS[kind], listed(kind), strict=True):
            assert f'id="{re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")}"' in html[f"reference/{kind}.html"]
            assert all(key in text for key in entry.model_fields)
    names = [f"{module}.{name}" for module, names in ssltransfer._MODULES.items() for name in names]
    names += [f"ssltransfer.losses.{name}" for name in ssltransfer.losses.__all__]
    assert all(f'id="{name}"' in html["reference/python.html"] for name in names)
    loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', "".join(html.values()))
    assert not loaded  # can be read offline


@pytest.mark.slow
def test_a_broken_link_is_an_error(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out = tool.lay_out

    def with_a_broken_link(source: Path) -> None:
        laid_out(source)
        (source / "use.md").write_text("# Use\n\n[none](nothing.md)\n")

    monkeypatch.setattr(tool, "lay_out", with_a_broken_link)
    assert tool.build(tmp_path) != 0
