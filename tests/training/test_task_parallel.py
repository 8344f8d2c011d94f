"""Two and four processes, divided among two tasks, against one process that follows the same rule."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import HELPERS

pytestmark = pytest.mark.slow
SCRIPT = HELPERS / "task_parallel_process.py"


@pytest.fixture(scope="module")
def folder(objects_path: Path, objects_val_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What task_parallel_process.py leaves, of one, two and four processes."""
    folder = tmp_path_factory.mktemp("groups")
    for world in (1, 2, 4):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = str(free.getsockname()[1])
        running = []
        for rank in range(world):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
            environment = {**os.environ, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
            environment |= {name: str(value) for name, value in place.items()}
            words = [sys.executable, SCRIPT, objects_path, objects_val_path, folder / str(world)]
            running.append(subprocess.Popen(words, env=environment))
        assert [process.wait(500) for process in running] == [0] * world
    return folder


def result(folder: Path, world: int, case: str, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / str(world) / f"{case}-{rank}.pt")
    return found


def close(one: dict[str, Any], other: dict[str, Any]) -> bool:
    curves = all(a == pytest.approx(b, rel=1e-3) for a, b in zip(one["curve"], other["curve"], strict=True))
    pairs = [(value, other["weights"][name]) for name, value in one["weights"].items()]
    return curves and all(torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-4) for a, b in pairs)


@pytest.mark.parametrize("case", ["in-turns", "at-once", "at-once-packs", "resumed"])
def test_task_parallel_matches_one_process(case: str, folder: Path):
    """At once each has a task of its own: the norms' batches are whole, and their statistics follow one another."""
    assert close(result(folder, 1, case), result(folder, 2, case))


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", ["in-turns", "at-once", "at-once-packs", "resumed", "whole"])
def test_task_parallel_has_equal_bits_in_all_processes(case: str, world: int, folder: Path):
    first = result(folder, world, case)
    for rank in range(1, world):
        other = result(folder, world, case, rank)
        assert other["curve"] == first["curve"]
        assert all(torch.equal(value, other["weights"][name]) for name, value in first["weights"].items())


@pytest.mark.parametrize("world", [1, 2, 4])
def test_task_parallel_resumes_with_the_same_bytes(world: int, folder: Path):
    whole, resumed = result(folder, world, "whole"), result(folder, world, "resumed")
    assert whole["curve"] == resumed["curve"]
    assert all(torch.equal(value, resumed["weights"][name]) for name, value in whole["weights"].items())
    assert len(resumed["seen"]) < len(whole["seen"])


def test_task_parallel_gives_a_process_the_images_of_its_task(folder: Path):
    everything = result(folder, 1, "at-once")["seen"]
    for world in (2, 4):
        for task, k in enumerate((3, 5)):
            batches = [ids for one, ids in everything if one == k]
            size = world // 2
            parts = [result(folder, world, "at-once", task * size + rank)["seen"] for rank in range(size)]
            assert all(one == k for part in parts for one, _ in part)
            joined = [[one for _, ids in step for one in ids] for step in zip(*parts, strict=True)]
            assert joined == batches
