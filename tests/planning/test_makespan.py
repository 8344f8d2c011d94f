"""Wall-clock time: against schedules that can be worked out by hand, and bounds that every schedule keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssltransfer.config import read_config
from ssltransfer.planning.costs import CostEstimate, estimate
from ssltransfer.planning.machine import Machine
from ssltransfer.planning.makespan import NODE, SHARED, jobs_before, makespan_hours

PAPER = list(estimate(read_config(Path(__file__).parents[2] / "config/noroozi2018.yaml"), Machine()))


def cost(stage: str, name: str, hours: float | None, *needs: str) -> CostEstimate:
    return CostEstimate(stage, name, needs, hours, None, None)


def test_makespan_runs_independent_jobs_in_parallel() -> None:
    jobs = [cost("evaluate", str(hours), hours) for hours in (3.0, 2.0, 1.0)]
    assert makespan_hours(jobs, 1) == 6 and makespan_hours(jobs, 2) == 3 and makespan_hours(jobs, 64) == 3


def test_makespan_runs_a_chain_in_sequence_on_shared_devices() -> None:
    chain = [
        cost("index", "images", 1.0),
        cost("features", "f on images", 8.0, "net", "images"),
        cost("pretext", "net", 16.0, "images"),
        cost("cluster", "c", 4.0, "f", "images"),
        cost("evaluate", "linear of net", None, "net"),
    ]
    assert jobs_before(chain) == {0: set(), 1: {0, 2}, 2: {0}, 3: {0, 1}, 4: {2}}
    assert makespan_hours(chain, 1) == 29
    assert makespan_hours(chain, 8) == makespan_hours(chain, 64) == 1 + 2 + 1 + 0.5


def test_jobs_before_keeps_entries_of_different_sections_apart() -> None:
    jobs = [
        cost("index", "images", 1.0),
        cost("pretext", "a", 1.0, "images"),
        cost("features", "a on images", 1.0, "a", "images"),
        cost("cluster", "a", 1.0, "a", "images"),
        cost("label", "a on images", 1.0, "a", "a", "images"),
        cost("student", "b", 1.0, "a", "images"),
    ]
    assert jobs_before(jobs) == {0: set(), 1: {0}, 2: {0, 1}, 3: {0, 2}, 4: {0, 1, 2, 3}, 5: {0, 1, 2, 4}}


def test_makespan_starts_the_longest_path_first() -> None:
    jobs = [
        cost("evaluate", "short", 2.0),
        cost("index", "long", 1.0),
        cost("evaluate", "after", 3.0, "long"),
    ]
    assert makespan_hours(jobs, 2) == 4


@pytest.mark.parametrize("devices", [1, 2, 8, 64])
def test_makespan_of_noroozi2018_is_within_bounds_of_list_scheduling(devices: int) -> None:
    width = {True: min(devices, NODE), False: 1}
    hours = [(one.hours or 0.0) / width[one.stage in SHARED] for one in PAPER]
    work = sum(one.hours or 0.0 for one in PAPER) / devices
    before, longest = jobs_before(PAPER), dict[int, float]()

    def path(job: int) -> float:
        if job not in longest:
            longest[job] = hours[job] + max(map(path, before[job]), default=0.0)
        return longest[job]

    critical = max(map(path, range(len(PAPER))))
    found = makespan_hours(PAPER, devices)
    assert max(work, critical) * (1 - 1e-9) <= found
    if devices == 1:
        assert found == pytest.approx(work)
