"""The worked example of CONTRIBUTING.md does what it says."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch

import ssltransfer.config.tasks as tasks
from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.fit import fit


def example() -> Any:
    """Run both code blocks as they stand; returns the module's names."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    options, method = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict[str, Any] = {"__name__": "example_options"}
    exec(compile(options, "mirror.py", "exec", dont_inherit=True), names)  # not this file's postponed annotations
    tasks.Mirror = names["Mirror"]  # type: ignore[attr-defined]
    module: dict[str, Any] = {"__name__": "example"}
    try:
        exec(method, module)
    finally:
        del tasks.Mirror  # type: ignore[attr-defined]
    return module["build"](names["Mirror"](), CaffeNet(width_mult=0.125, img_size=64, stem_stride=2, bn=True), 0)


def test_the_worked_example_trains(objects: Index, tmp_path: Path) -> None:
    task = example()
    images = torch.randint(0, 256, (64, 3, 64, 64), dtype=torch.uint8)
    batch = Batch(images, torch.arange(64), torch.zeros(64, dtype=torch.int64))
    assert abs(task(batch, batch.rng(0))["loss"].item() - math.log(2)) < 0.5
    assert [caption for caption, _ in task.show(batch, batch.rng(0))] == ["image", "input", "flipped?"]
    fitted = fit(task, objects, Schedule(steps=3, batch_size=16), seed=0, folder=tmp_path, devices=plan_devices(1))
    assert len(fitted.curve) == 3
