"""The documentation as a site: `python tools/docs_site.py FOLDER` (`make docs`). A warning is an error.

The pages are those of docs/, README.md, CONTRIBUTING.md and others of the repository, a reference of all options and
one of the Python interface. They are laid out in FOLDER/source with docs/ at the top, and built by Sphinx into
FOLDER/html.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from sphinx.cmd.build import build_main

import ssltransfer
from ssltransfer.cli import KINDS, listed, shown_default

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\(<?)([^)\s>#:]+)(?=[)\s>#])")
TITLES = {"protocols": "evaluations"}
REFERENCE = ["protocols", *(f"reference/{kind}" for kind in KINDS), "reference/python"]
CHAPTERS = {
    "Tutorials": ["tutorials/own_images", "tutorials/paper_table", "tutorials/slurm"],
    "Guides": ["compress", "own_networks", "clustering", "use", "config/README", "CONTRIBUTING"],
    "Data": ["datasets", "images"],
    "Running and results": ["running", "results"],
    "Reference": REFERENCE,
    "Internals": ["architecture", "performance", "CHANGELOG"],
}


def build(folder: Path) -> int:
    """Write the site into `folder`/html and return Sphinx's exit code, which is not 0 after a warning."""
    source = folder / "source"
    lay_out(source)
    flags = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(folder / "doctrees")]
    return build_main([*flags, str(source), str(folder / "html")])


def lay_out(source: Path) -> None:
    """Write all pages, and the files that they link to, into an empty folder."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("*.md", "draw.py", "__pycache__"))
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    pages += [ROOT / f"{page}.md" for pages in CHAPTERS.values() for page in pages if (ROOT / f"{page}.md").is_file()]
    texts = {place(page): relinked(page.read_text("utf-8"), page) for page in pages}
    texts |= {f"reference/{kind}.md": reference(kind) for kind in KINDS} | {"reference/python.md": python_reference()}
    texts["index.md"] += "\n" + "\n".join(table_of_contents(title, names) for title, names in CHAPTERS.items())
    for name, text in texts.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, "utf-8")
    for target in {target for page in pages for target in linked(page)} - set(pages):
        (source / place(target)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(target, source / place(target))


def place(path: Path) -> str:
    """Where a file of the repository is in the site."""
    inside = path.relative_to(ROOT).as_posix().removeprefix("docs/")
    return "index.md" if inside == "README.md" else inside


def linked(page: Path) -> list[Path]:
    """The files of the repository that a page links to."""
    targets = [(page.parent / match[2]).resolve() for match in LINK.finditer(page.read_text("utf-8"))]
    return [target for target in targets if target.is_file() and target.is_relative_to(ROOT)]


def relinked(markdown: str, page: Path) -> str:
    """The text of a page, with links to places in the site."""

    def moved(match: re.Match[str]) -> str:
        target = (page.parent / match[2]).resolve()
        if not target.is_file() or not target.is_relative_to(ROOT):
            return match[0]
        return f"{match[1]}{'../' * place(page).count('/')}{place(target)}"

    return LINK.sub(moved, markdown)


def table_of_contents(title: str, names: list[str]) -> str:
    """A hidden table of contents, which the theme shows beside each page."""
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *names, "```", ""])


def reference(kind: str) -> str:
    """A section for each class of options: its text, its source and a table of its options with their defaults."""
    title = TITLES.get(kind, kind).capitalize()
    parts = [f"# {title}: all options\n\nAs `ssltransfer describe NAME` prints them.\n"]
    for entry, (name, _, source) in zip(KINDS[kind], listed(kind), strict=True):
        parts.append(f"## {name}\n\n{plain(inspect.getdoc(entry) or '')}\n")
        if source:
            parts.append(f"Source: {plain(source)}\n")
        rows = [
            f"| `{key}` | {default(option)} | {plain(option.description or '').replace('|', chr(92) + '|')} |"
            for key, option in list(entry.model_fields.items())[1:]
        ]
        if rows:
            parts.append("\n".join(["| option | default | |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def default(option: Any) -> str:
    """The default of an option, as code."""
    return "required" if option.is_required() else f"`{shown_default(option)}`"


def plain(text: str) -> str:
    """Text without marks of Markdown except for code."""
    return re.sub(r"[<*_\[\]$]", lambda mark: f"\\{mark[0]}", text)


def python_reference() -> str:
    """Everything in `dir(ssltransfer)`, and the functions of its module."""
    parts = ["# Python\n\nAll names of `import ssltransfer`.\n"]
    for name in dir(ssltransfer):
        entry = getattr(ssltransfer, name)
        if name.startswith("__"):
            continue
        if inspect.ismodule(entry):
            directive, members = "automodule", "   :members:\n"
        elif inspect.isclass(entry):
            directive, members = "autoclass", "   :members:\n"
        else:
            directive, members = "autofunction", ""
        home = entry.__name__ if inspect.ismodule(entry) else f"{entry.__module__}.{name}"
        parts.append(f"```{{eval-rst}}\n.. {directive}:: {home}\n{members}```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]).resolve()))
