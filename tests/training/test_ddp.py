"""Two processes against one: the same curve and the same weights, to rounding."""

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

SCRIPT = HELPERS / "ddp_process.py"
Results = dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def folder(objects_path: Path, objects_val_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ddp_process.py leaves, of one process and of two."""
    folder = tmp_path_factory.mktemp("ddp")
    for world in (1, 2):
        run_processes(world, objects_path, objects_val_path, folder / str(world))
    return folder


def run_processes(world: int, *arguments: object) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    running = []
    for rank in range(world):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        environment = {**os.environ, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        environment |= {name: str(value) for name, value in place.items()}
        running.append(subprocess.Popen([sys.executable, SCRIPT, *map(str, arguments)], env=environment))
    assert [process.wait(500) for process in running] == [0] * world


def results(folder: Path, case: str) -> tuple[dict[str, Any], Results]:
    alone = torch.load(folder / "1" / f"{case}-0.pt")
    return alone, {rank: torch.load(folder / "2" / f"{case}-{rank}.pt") for rank in (0, 1)}


def close(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> bool:
    # Not the accuracy: one rounding error may change a prediction.
    curves = [[{k: v for k, v in row.items() if k != "val_right"} for row in each["curve"]] for each in (one, other)]
    same_curve = len(curves[0]) == len(curves[1]) > 0 and all(
        row == pytest.approx(other_row, rel=tolerance) for row, other_row in zip(*curves, strict=True)
    )
    pairs = [(value, other["weights"][name]) for name, value in one["weights"].items()]
    return same_curve and all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)


@pytest.mark.parametrize(
    ("case", "tolerance"),
    [
        ("plain", 1e-5),
        ("accumulated", 1e-5),
        ("clipped", 1e-4),
        ("half", 1e-2),
        ("synced", 1e-4),
        ("surveyed", 1e-4),  # colorization, which measures the training images first
        ("pairs", 1e-4),  # jigsaw++, whose occluders come from the neighbor in the batch
        ("patches", 1e-3),  # several questions an image, and a normalized head
        ("views", 1e-3),  # exemplar, whose loss compares the images of a micro-batch: a share here
    ],
)
def test_ddp_matches_one_process(case: str, tolerance: float, folder: Path):
    alone, both = results(folder, case)
    assert close(alone, both[0], tolerance)
    assert "val_loss" in both[0]["curve"][-1]
    assert both[0]["curve"] == both[1]["curve"]
    assert all(torch.equal(value, both[1]["weights"][name]) for name, value in both[0]["weights"].items())


def test_ddp_without_sync_bn_is_equal_in_all_processes(folder: Path):
    """So that the test above can fail: statistics of a share are others than those of the batch."""
    alone, both = results(folder, "shares")
    assert not close(alone, both[0], 1e-3)
    assert both[0]["curve"] == both[1]["curve"]
    assert all(torch.equal(value, both[1]["weights"][name]) for name, value in both[0]["weights"].items())


def test_ddp_splits_each_batch_in_order(folder: Path):
    alone, both = results(folder, "plain")
    for step, batch in enumerate(alone["seen"]):
        assert [both[rank]["seen"][step] for rank in (0, 1)] == [batch[:8], batch[8:]]
    _, parts = results(folder, "accumulated")
    assert [ids for rank in (0, 1) for ids in parts[rank]["seen"][:2]] == [
        alone["seen"][0][start : start + 4] for start in (0, 4, 8, 12)
    ]


def test_ddp_draws_other_dropout_in_each_process(folder: Path):
    alone, both = results(folder, "dropout")
    assert not close(alone, both[0], 1e-3) and both[0]["curve"] == both[1]["curve"]


def test_ddp_rejects_a_batch_that_does_not_divide(folder: Path):
    alone, both = results(folder, "odd")
    assert alone["said"] == ""
    for result in both.values():
        assert result["said"].startswith("A batch of 10 images cannot be divided among 2 devices")
        assert result["seen"] == []


def test_ddp_stops_all_processes_at_nonfinite_loss(folder: Path):
    _, both = results(folder, "broken")
    assert both[0]["said"] == both[1]["said"] and "The loss is not finite at step" in both[0]["said"]
    assert sorted(path.name for path in (folder / "2" / "broken").iterdir()) == [
        "curve.jsonl",
        "not_finite-0.pt",
        "not_finite-1.pt",
    ]


def test_ddp_writes_files_in_the_first_process(folder: Path):
    assert sorted(path.name for path in (folder / "2" / "plain").iterdir()) == ["checkpoint.pt", "curve.jsonl"]


@pytest.mark.parametrize("world", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_ddp_resumed_training_ends_with_the_same_bytes(world: int, objects_path: Path, tmp_path: Path):
    """With three and more processes the order of the sum matters: torch's buckets must not change after a step."""
    run_processes(world, "resumed", objects_path, tmp_path)
    for case in ("sync-bn", "sometimes"):
        whole = torch.load(tmp_path / f"{case}-whole-0.pt")
        for rank in range(world):
            for kind in ("whole", "cut"):
                other = torch.load(tmp_path / f"{case}-{kind}-{rank}.pt")
                assert other["curve"] == whole["curve"]
                assert all(torch.equal(value, other["weights"][name]) for name, value in whole["weights"].items())
            assert other["seen"] < whole["seen"]
