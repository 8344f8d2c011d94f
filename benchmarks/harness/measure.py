"""Settings and results of benchmarks, and interleaved timing."""

from __future__ import annotations

import importlib
import io
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

Contender = Callable[[], object]  # a float that it returns is the seconds it took by its own clock
OURS = "ours"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Setting:
    """Settings of one benchmark run.

    Attributes:
        small: tiny sizes, for testing only.
        rounds: samples of each contender.
        threads: CPU threads of all libraries; equals OMP_NUM_THREADS.
        device: "cpu" or "cuda".
        folder: empty; removed afterwards.
    """

    small: bool
    rounds: int
    threads: int
    device: str
    folder: Path

    def size(self, full: int, small: int) -> int:
        """One of two sizes."""
        return small if self.small else full


@dataclass(frozen=True)
class Comparison:
    """The same work done by several contenders.

    Attributes:
        case: the work and its sizes.
        work: units of work in one call.
        unit: of the work, such as "images".
        samples: contender -> seconds of each round; `OURS` is one of them.
        goals: baseline -> how many times as fast ours should be; None: no goal.
        upper_bounds: contenders that only do the unavoidable part of the work.
        paces: speeds for `ssltransfer estimate --benchmark-results`: name -> contender, amount of work in one call.
    """

    case: str
    work: float
    unit: str
    samples: dict[str, list[float]]
    goals: dict[str, float | None]
    upper_bounds: tuple[str, ...] = ()
    paces: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    def speed(self, baseline: str) -> tuple[float, float, float]:
        """Speed relative to a baseline: ratio of the medians, smallest and largest ratio within a round."""
        ours, theirs = self.samples[OURS], self.samples[baseline]
        rounds = [b / a for a, b in zip(ours, theirs, strict=True)]
        return median(theirs) / median(ours), min(rounds), max(rounds)


@dataclass(frozen=True)
class Figure:
    """One number with a maximum.

    Attributes:
        case: the quantity and its sizes.
        unit: of the number.
        samples: the number in each round; the median counts.
        goal: maximum.
        details: raw measurements.
    """

    case: str
    unit: str
    samples: list[float]
    goal: float | None
    details: dict[str, Any]


@dataclass(frozen=True)
class NotRun:
    """A case that was not measured.

    Attributes:
        case: the missing measurement.
        why: reason, such as "no GPU".
    """

    case: str
    why: str


Result = Comparison | Figure | NotRun


def interleave(
    contenders: Mapping[str, Contender],
    rounds: int,
    before: Callable[[str], object] = lambda name: None,
    *,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Time the contenders alternately, so that other load on the machine affects all alike.

    Args:
        contenders: by name, in the order of a round.
        rounds: samples of each.
        before: called with the name before each call; not timed.
        warm_up: begin with a round that is not counted. Contenders that are processes of their own need none.

    Returns:
        Name -> seconds of each round.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(0 if warm_up else 1, rounds + 1):
        for name, call in contenders.items():
            before(name)
            _wait_for_device()
            began = time.perf_counter()
            own = call()
            _wait_for_device()
            seconds = own if isinstance(own, float) else time.perf_counter() - began
            if number:
                samples[name].append(seconds)
    return samples


def seconds_of_pass(step: Callable[[], None], least: int) -> float:
    """Seconds of a pass, the mean of as many as take `least` seconds: one alone may be too short for the clock."""
    began, passes, spent = time.perf_counter(), 0, 0.0
    while passes == 0 or spent < least:
        step()
        _wait_for_device()
        passes, spent = passes + 1, time.perf_counter() - began
    return spent / passes


def _wait_for_device() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def run_benchmark(name: str, setting: Setting) -> list[Result]:
    """All results of a benchmark; the output of the stages is discarded."""
    torch.set_num_threads(setting.threads)
    with redirect_stdout(io.StringIO()):
        results = []
        for result in importlib.import_module(f"benchmarks.{name}").run(setting):
            print(f"benchmarks: {name}: {result.case}", file=sys.stderr, flush=True)
            results.append(result)
        return results


def run_in_process(
    function: Callable[..., Value], *arguments: object, environment: Mapping[str, str] | None = None
) -> Value:
    """Call a function of a module in a fresh process with its own memory, threads and environment.

    Its exceptions are raised here.
    """
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        os.environ.clear()
        os.environ.update(before)
