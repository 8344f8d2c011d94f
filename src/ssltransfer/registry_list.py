"""List of all formats, backbones, tasks, methods and protocols."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from typing import Any

from ssltransfer.config.backbones import BACKBONES
from ssltransfer.config.formats import FORMATS
from ssltransfer.config.methods import METHODS
from ssltransfer.config.protocols import PROTOCOLS
from ssltransfer.config.tasks import TASKS

KINDS: dict[str, Any] = {
    "formats": FORMATS,
    "backbones": BACKBONES,
    "tasks": TASKS,
    "methods": METHODS,
    "protocols": PROTOCOLS,
}


def listed(kind: str) -> list[tuple[str, str, str]]:
    """(name, description, source) of each format, backbone, task, method or protocol."""
    rows = []
    for entry in KINDS[kind]:
        tag = "format" if kind == "formats" else "name"
        first = (inspect.getdoc(entry) or "").splitlines()[0]
        rows.append((str(entry.model_fields[tag].default), first, entry.reference))
    return rows


def print_list(kind: str) -> None:
    """Print one line for each."""
    rows = listed(kind)
    width = max(len(name) for name, _, _ in rows)
    columns = max(60, shutil.get_terminal_size((110, 24)).columns)
    for name, line, source in rows:
        text = f"{line} [{source}]" if source else line
        print(textwrap.fill(text, columns, initial_indent=f"{name:<{width}}  ", subsequent_indent=" " * (width + 2)))
