"""The check of the lock on other platforms; uv asks the package index, which takes seconds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("check_platforms", ROOT / "tools" / "check_platforms.py")
assert SPEC is not None and SPEC.loader is not None
check_platforms = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check_platforms)


@pytest.mark.slow
def test_package_without_a_wheel_for_the_platform_is_found(tmp_path: Path):
    line = next(line for line in (ROOT / "envs/requirements.lock").read_text().splitlines() if "faiss-gpu==" in line)
    lock = tmp_path / "requirements.lock"
    lock.write_text(line.partition(" ")[0])
    assert check_platforms.problem(lock, "x86_64-unknown-linux-gnu", "3.11") == ""
    assert "no wheels with a matching platform tag" in check_platforms.problem(
        lock, "aarch64-unknown-linux-gnu", "3.11"
    )
