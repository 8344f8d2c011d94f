"""Training of the demo's small network on a quiet and on a busy machine, under three settings of OpenMP."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness import images
from benchmarks.harness.measure import OURS, Comparison, Setting, interleave
from ssltransfer.artifacts.index import read_index
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.entities import Student
from ssltransfer.config.formats import CacheOptions
from ssltransfer.stages import cache
from ssltransfer.tasks.supervised import Classifier
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.fit import fit

DEFAULT, PASSIVE = "libgomp's default (300,000 spins)", "passive waiting"
SETTINGS: dict[str, dict[str, str]] = {
    OURS: {},
    DEFAULT: {"GOMP_SPINCOUNT": "300000"},
    PASSIVE: {"GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "PASSIVE"},
}
BATCH, CLASSES, DRAWN = 32, 40, 512
# Imports the package before torch, as every command does: libgomp reads its settings once, when torch loads it.
CHILD = "import sys, ssltransfer; from benchmarks import busy; busy.train(*sys.argv[1:])"


def run(setting: Setting) -> Iterator[Comparison]:
    """Each training is a process of its own with its own environment; its own clock measures the steps."""
    path = images.draw(setting.folder, setting.size(DRAWN, BATCH))
    options, index = CacheOptions(format="raw", short_side=80), setting.folder / "raw.parquet"
    cache.run(options, data=path, output=index, threads=setting.threads)
    steps = setting.size(100, 4)
    goals: tuple[tuple[int, dict[str, float | None]], ...] = (
        (0, {DEFAULT: 0.97, PASSIVE: None}),
        (2, {DEFAULT: None, PASSIVE: 1 / 1.3}),
    )
    for loops, goal in goals:
        contenders = {
            name: partial(_train_beside, loops, variables, index, steps, setting.threads)
            for name, variables in SETTINGS.items()
        }
        load = f"beside {loops} busy loops" if loops else "quiet machine"
        case = f"caffenet x 0.25, {load}, {steps} steps of {BATCH}, {setting.threads} threads"
        yield Comparison(case, steps * BATCH, "images", interleave(contenders, setting.rounds, warm_up=False), goal)


def _train_beside(loops: int, variables: Mapping[str, str], index: Path, steps: int, threads: int) -> float:
    """Seconds of the steps of a training in a fresh process, beside busy loops."""
    inherited = {key: value for key, value in os.environ.items() if key not in SETTINGS[PASSIVE]}
    command = [sys.executable, "-c", CHILD, str(index), str(steps), str(threads)]
    with ExitStack() as stack:
        for _ in range(loops):
            loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(loop.wait)
            stack.callback(loop.kill)
        child = subprocess.run(
            command,
            env={**inherited, **variables},
            cwd=Path(__file__).parents[1],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return float(child.stdout.splitlines()[-1])


def train(path: str, steps: str, threads: str) -> None:
    """Train on the index at `path` and print the seconds of the steps."""
    index = read_index(Path(path))
    index = index.with_labels(np.arange(len(index), dtype=np.int32) % CLASSES, [str(label) for label in range(CLASSES)])
    spec = Student.model_validate(
        {
            "method": "supervised",
            "data": "d",
            "backbone": CaffeNet(width_mult=0.25, img_size=64, stem_stride=2, bn=True),
            "schedule": {"steps": int(steps), "batch_size": BATCH, "lr": 0.01},
        }
    )
    task = Classifier(spec, CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        devices = plan_devices(int(threads))
        fitted = fit(task, index, spec.schedule, seed=0, folder=Path(folder), devices=devices)
    print(int(steps) * BATCH / float(fitted.measured["images_per_second"]))
