"""docs/notebooks: clean notebooks whose cells run from top to bottom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.workflow import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[str]:
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    assert content["nbformat"] == 4
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


def script(path: Path) -> str:
    """The code of all cells; a line that starts with ! is a command of the shell."""
    lines = []
    for line in "\n".join(cells(path, "code")).splitlines():
        shell = f"import subprocess; subprocess.run({line[1:]!r}, shell=True, check=True)"
        lines.append(shell if line.startswith("!") else line)
    return "\n".join(lines)


def test_there_are_three() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_results(path: Path) -> None:
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)
    assert cells(path, "markdown")[0].startswith("# ")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "MPLBACKEND": "Agg", "PATH": commands}
    run = subprocess.run(
        [sys.executable, "-c", script(path)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
