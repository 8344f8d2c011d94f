"""The memory budget follows whoever allows least."""

import resource

import psutil
import pytest

from ssltransfer.training import memory_budget as memory
from ssltransfer.training.memory_budget import memory_budget

MB = 1 << 20


@pytest.fixture(autouse=True)
def _free(monkeypatch, tmp_path):
    monkeypatch.delenv("SSLTRANSFER_MEMORY_MB", raising=False)
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)


def test_memory_budget_is_half_of_the_available_memory():
    assert memory_budget() == pytest.approx(psutil.virtual_memory().available / 2, rel=0.2)


def test_memory_budget_takes_the_number_of_the_environment(monkeypatch):
    monkeypatch.setenv("SSLTRANSFER_MEMORY_MB", "77")
    assert memory_budget() == 77 * MB
    monkeypatch.setenv("SSLTRANSFER_MEMORY_MB", "8 GB")
    with pytest.raises(ValueError, match="whole number of megabytes"):
        memory_budget()


def test_memory_budget_respects_control_groups(tmp_path):
    """Version 2 at the root and version 1 beside it: whichever this machine has, the group of an ancestor counts."""
    for folder, limit, used in (
        (tmp_path, "memory.max", "memory.current"),
        (tmp_path / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / limit).write_text(f"{100 * MB}\n")
        (folder / used).write_text(f"{50 * MB}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {10 * MB}\n")
    assert memory_budget() == 30 * MB
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(f"{1 << 62}\n")
    assert memory_budget() > 30 * MB


@pytest.mark.parametrize(("limit", "used"), [(resource.RLIMIT_AS, "vms"), (resource.RLIMIT_DATA, "data")])
def test_memory_budget_respects_process_limits(limit, used):
    before = resource.getrlimit(limit)
    try:
        resource.setrlimit(limit, (getattr(psutil.Process().memory_info(), used) + 200 * MB, before[1]))
        assert memory_budget() == pytest.approx(100 * MB, rel=0.1)
    finally:
        resource.setrlimit(limit, before)
