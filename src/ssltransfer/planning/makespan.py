"""Time to complete all jobs on a number of devices."""

import heapq
from collections.abc import Sequence
from graphlib import TopologicalSorter

from ssltransfer.planning.costs import CostEstimate

NODE = 8  # devices that one job may share
SHARED = {"pretext", "features", "cluster", "student"}  # stages whose jobs share several


DATA = {"index", "motion", "cache", "curate"}
MODELS = {"pretext", "student"}
# The stages whose results each stage reads: entries of different sections may have the same name.
READS = {
    "index": set[str](),
    "motion": {"index"},
    "cache": {"index", "motion"},
    "curate": DATA | {"features", "cluster", "label"},
    "pretext": DATA | MODELS,
    "features": DATA | MODELS,
    "cluster": DATA | {"features"},
    "label": DATA | MODELS | {"features", "cluster"},
    "student": DATA | MODELS | {"features", "label"},
    "evaluate": DATA | MODELS | {"features"},
    "export": MODELS,
}


def makespan_hours(costs: Sequence[CostEstimate], devices: int) -> float:
    """Hours from the start of the first job to the end of the last, with perfect scaling and no queueing.

    Jobs start as soon as their inputs exist and devices are free; the job with the longest remaining path is first
    (list scheduling, Graham 1966).
    """
    before = jobs_before(costs)
    width = [min(devices, NODE) if cost.stage in SHARED else 1 for cost in costs]
    hours = [(cost.hours or 0.0) / wide for cost, wide in zip(costs, width, strict=True)]
    rest = list(hours)
    for job in reversed(list(TopologicalSorter(before).static_order())):
        for other in before[job]:
            rest[other] = max(rest[other], hours[other] + rest[job])
    waiting, done, running, now, free = set(range(len(costs))), set[int](), list[tuple[float, int]](), 0.0, devices
    while waiting or running:
        ready = sorted((job for job in waiting if before[job] <= done), key=lambda job: (-rest[job], job))
        for job in ready:
            if width[job] <= free:
                free -= width[job]
                waiting.remove(job)
                heapq.heappush(running, (now + hours[job], job))
        now, job = heapq.heappop(running)
        free += width[job]
        done.add(job)
    return now


def jobs_before(costs: Sequence[CostEstimate]) -> dict[int, set[int]]:
    """The jobs on which each job depends: those named in `needs`, and those of the form `A on B` for two such names."""
    jobs: dict[str, set[int]] = {}
    for job, cost in enumerate(costs):
        jobs.setdefault(cost.name, set()).add(job)
    found = {}
    for job, cost in enumerate(costs):
        names = {*cost.needs, *(f"{thing} on {data}" for thing in cost.needs for data in cost.needs)}
        named = set[int]().union(*(jobs.get(name, set()) for name in names)) - {job}
        found[job] = {other for other in named if costs[other].stage in READS[cost.stage]}
    return found
