"""Whether a configuration can run on this machine: inputs, disk space and devices."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
import torch

from ssltransfer.artifacts.outdated import is_current
from ssltransfer.config import Config, ConfigError
from ssltransfer.config.published_weights import weights_record
from ssltransfer.config.tasks import Pretrained
from ssltransfer.errors import UserError
from ssltransfer.planning.advice import advice
from ssltransfer.planning.costs import CostEstimate, estimate, images, listing_problem
from ssltransfer.planning.inputs import input_problems
from ssltransfer.planning.machine import this_machine
from ssltransfer.planning.profile import TRAININGS
from ssltransfer.planning.summary import size_text
from ssltransfer.processes import available_cores


class Finding(NamedTuple):
    """One line of `ssltransfer check`; `missing` keeps the configuration from running."""

    kind: Literal["ok", "note", "warning", "missing"]
    text: str


def findings(config: Config) -> Iterator[Finding]:
    """What is ready and what is not: datasets, files, weights, free disk space, memory and GPUs."""
    problems = list(input_problems(config))
    yield from (Finding("missing", problem) for problem in problems)
    for name in config.datasets:
        if not any(problem.startswith(f"datasets.{name}.") for problem in problems):
            yield _dataset(config, name)
    yield from _weights(config)
    yield from (Finding("warning", line) for line in advice(config))
    try:
        costs = list(estimate(config, this_machine()))
    except (ConfigError, UserError) as error:
        yield Finding("missing", f"no estimate of disk and memory: {error}")
        costs = []
    yield _disk(config, costs)
    yield from _devices(costs)


def _dataset(config: Config, name: str) -> Finding:
    dataset, where = config.datasets[name], f"datasets.{name}"
    if not is_current(f"{config.results}/index/{name}.parquet", dataset) and (problem := listing_problem(dataset)):
        return Finding("missing", f"{where}: {problem}")
    n = images(config, name)
    return Finding("ok", f"{where}: {f'{n} images' if n is not None else 'number of images unknown'}")


def _weights(config: Config) -> Iterator[Finding]:
    for name, pretext in config.pretexts.items():
        if (
            isinstance(pretext.task, Pretrained)
            and not Path(config.results, "pretext", name, "manifest.json").is_file()
        ):
            try:
                record = weights_record(pretext.task.weights_for(pretext.backbone))
            except UserError:
                continue  # among the problems of the inputs
            text = f"pretexts.{name}: {record.weights} is downloaded unless it is in the cache, from {record.source}"
            yield Finding("note", text)


def _disk(config: Config, costs: list[CostEstimate]) -> Finding:
    needed = sum(cost.disk_gb or 0.0 for cost in costs if not _made(config, cost))
    folder = Path(config.results).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return Finding("missing", f"results: {existing} is not writable; choose another folder")
    free = shutil.disk_usage(existing).free / 1e9
    least = "at least " if any(cost.disk_gb is None and cost.stage == "features" for cost in costs) else ""
    text = f"disk: {least}{size_text(needed)} needed, {size_text(free)} free at {existing}"
    return Finding("ok", text) if needed < free else Finding("missing", f"{text}; choose another folder for `results`")


def _made(config: Config, cost: CostEstimate) -> bool:
    result = Path(config.results, cost.stage, *cost.name.split(" on "))
    return result.with_name(f"{result.name}.parquet").is_file() or (result / "manifest.json").is_file()


def _devices(costs: list[CostEstimate]) -> Iterator[Finding]:
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    for number, gpu in enumerate(gpus):
        yield Finding("ok", f"GPU {number}: {gpu.name}, {gpu.total_memory / 1e9:.0f} GB")
    memory = psutil.virtual_memory().total / 1e9
    if not gpus:
        yield Finding("note", "GPU: none; all jobs run on the CPU")
    yield Finding("ok", f"CPU: {available_cores()} cores, {memory:.0f} GB of memory")
    # Other stages keep in memory what fits.
    trainings = [cost for cost in costs if cost.stage in TRAININGS]
    largest = max(trainings, key=lambda cost: cost.memory_gb or 0.0, default=None)
    least = min((gpu.total_memory / 1e9 for gpu in gpus), default=memory)
    if largest and largest.memory_gb and largest.memory_gb > least:
        yield Finding(
            "warning",
            f"memory: {largest.stage} {largest.name} needs about {size_text(largest.memory_gb)}, more than "
            f"{size_text(least)}; set `micro_batch_size`, or a smaller batch",
        )
