"""Cost estimate of a configuration: its jobs with their dependencies, hours, disk and memory.

Hours are floating-point operations and images to decode, divided by the rates of a device and its CPU cores. The rates
are assumed, given, or measured.
"""

from collections.abc import Sequence

from ssltransfer.config import Config, ConfigError
from ssltransfer.planning.advice import advice
from ssltransfer.planning.caches import enlarged
from ssltransfer.planning.costs import CostEstimate, estimate, images
from ssltransfer.planning.inputs import input_problems, network_problems
from ssltransfer.planning.machine import Machine
from ssltransfer.planning.makespan import NODE, makespan_hours

DEVICES = (1, 8, 64)


def print_estimate(config: Config, machine: Machine | None = None) -> list[CostEstimate]:
    """Print each job with its dependencies and cost, the totals of each stage, and the time to the last result.

    Returns:
        The costs of the jobs.

    Raises:
        ConfigError: a network cannot be built, so that it has no cost.
    """
    machine = machine or Machine()
    for problem in network_problems(config):
        raise ConfigError(problem)
    costs = list(estimate(config, machine))
    for stage in dict.fromkeys(cost.stage for cost in costs):
        print(f"\n{stage}")
        rows = [cost for cost in costs if cost.stage == stage]
        width = max(len(cost.name) for cost in rows)
        for cost in rows:
            implicit = " (implicit)" if cost.name.split(" on ")[0] in config.derived else ""
            needs = f"  <- {', '.join(cost.needs)}" if cost.needs else ""
            print(f"  {cost.name:<{width}} {_hours(cost.hours):>9} {size_text(cost.disk_gb):>9}{implicit}{needs}")
    print(f"\n{'stage':<10} {'jobs':>5} {'hours':>10} {'disk':>10} {'memory of the largest job':>26}  limited by")
    for stage in dict.fromkeys(cost.stage for cost in costs):
        rows = [cost for cost in costs if cost.stage == stage]
        memory = max((c.memory_gb for c in rows if c.memory_gb is not None), default=None)
        limits = ", ".join(dict.fromkeys(c.limit for c in rows if c.limit))
        print(f"{stage:<10} {_totals(rows)} {size_text(memory):>26}  {limits}".rstrip())
    print(f"{'all':<10} {_totals(costs)}")
    walls = ", ".join(f"{_least(_hours(makespan_hours(costs, count)), costs)} on {count}" for count in DEVICES)
    print(f"Hours are of one device. From the first job to the last: {walls} (a job shares at most {NODE}).")
    unknown = sorted({name for name in config.datasets if images(config, name) is None})
    if unknown:
        print(f"Not counted: jobs on {', '.join(unknown)} (unknown size: index them first, or set `num_images_hint`).")
    for line in enlarged(config):
        print(line)
    for line in advice(config):
        print(f"Warning: {line}")
    for line in input_problems(config):
        print(f"Not ready: {line}")
    print(machine)
    return costs


def _totals(costs: Sequence[CostEstimate]) -> str:
    """Number of jobs, hours and disk."""
    hours, kept = [cost.hours for cost in costs], [cost.disk_gb for cost in costs if cost.disk_gb is not None]
    said = _hours(sum(filter(None, hours))) if set(hours) != {None} else "?"
    return f"{len(costs):>5} {_least(said, costs):>10} {_least(size_text(sum(kept) if kept else None), costs):>10}"


def _least(said: str, costs: Sequence[CostEstimate]) -> str:
    """With a > if some datasets have an unknown number of images."""
    unknown = any(cost.hours is None for cost in costs) and said not in "?-"
    return f"> {said.removeprefix('< ')}" if unknown else said


def _hours(hours: float | None) -> str:
    if hours is None:
        return "?"
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s" if hours * 3600 >= 0.5 else "< 1 s"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.1f} h"


def size_text(gigabytes: float | None) -> str:
    """A size with its unit; - if unknown."""
    if gigabytes is None:
        return "-"
    if gigabytes < 0.001:
        return "< 1 MB"
    return f"{gigabytes * 1000:.0f} MB" if gigabytes < 1 else f"{gigabytes:.1f} GB"
