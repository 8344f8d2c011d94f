"""What a row is given, what it yields, and how times are taken: in one run, in turns."""

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
    """What every row is given.

    Attributes:
        small: sizes that show that a row works, not what it is worth.
        rounds: samples of each contender.
        threads: CPU threads of all libraries; OMP_NUM_THREADS says the same.
        device: "cpu" or "cuda".
        folder: empty, the row's own, removed afterwards.
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
    """The same work done by several.

    Attributes:
        case: what is done, with its sizes.
        work: units of work in one call.
        unit: of the work, such as "images".
        samples: seconds of each contender in each round, by name; `OURS` is one.
        goals: how many times as fast as each rival we want to be; None: no goal is set.
        limits: contenders that are no rivals but do the part that nobody can avoid.
        paces: what `ssltransfer estimate --benchmark-results` reckons with: name -> contender, and amount that one call of it does.
    """

    case: str
    work: float
    unit: str
    samples: dict[str, list[float]]
    goals: dict[str, float | None]
    limits: tuple[str, ...] = ()
    paces: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    def speed(self, rival: str) -> tuple[float, float, float]:
        """Times as fast as a rival: ratio of the medians, and the least and largest ratio within a round."""
        ours, theirs = self.samples[OURS], self.samples[rival]
        rounds = [b / a for a, b in zip(ours, theirs, strict=True)]
        return median(theirs) / median(ours), min(rounds), max(rounds)


@dataclass(frozen=True)
class Figure:
    """One number that has an upper bound.

    Attributes:
        case: what is measured, with its sizes.
        unit: of the number.
        samples: the number in each round; the median counts.
        goal: what it may be at most.
        details: what it was made from.
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
        case: what would have been measured.
        why: such as "no GPU".
    """

    case: str
    why: str


Result = Comparison | Figure | NotRun


def in_turns(
    contenders: Mapping[str, Contender], rounds: int, before: Callable[[str], object] = lambda name: None
) -> dict[str, list[float]]:
    """Seconds of each contender, all called one after the other, again and again, so that what else the machine does
    falls on all alike; the first round is not counted.

    Args:
        contenders: by name, in the order of a round.
        rounds: samples of each.
        before: called with the name before each call, off the clock.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, call in contenders.items():
            before(name)
            _wait_for_device()
            began = time.perf_counter()
            own = call()
            _wait_for_device()
            seconds = own if isinstance(own, float) else time.perf_counter() - began
            if turn:
                samples[name].append(seconds)
    return samples


def _wait_for_device() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def run_row(name: str, setting: Setting) -> list[Result]:
    """All results of a row; what the stages say meanwhile is not shown."""
    torch.set_num_threads(setting.threads)
    with redirect_stdout(io.StringIO()):
        results = []
        for result in importlib.import_module(f"benchmarks.{name}").run(setting):
            print(f"benchmarks: {name}: {result.case}", file=sys.stderr, flush=True)
            results.append(result)
        return results


def alone(function: Callable[..., Value], *arguments: object, environment: Mapping[str, str] | None = None) -> Value:
    """Call a module's function in a fresh process, so that neither its memory nor its threads are others'.

    What it raises is raised here.
    """
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        os.environ.clear()
        os.environ.update(before)
