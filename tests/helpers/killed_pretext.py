"""A pretext training that is killed at a chosen moment; run by test_resume.py in a process of its own.

Globals given: spec (JSON), data, output, log (paths), every (steps between checkpoints), moment and count. Every step
that is computed is written to the log.
"""

import os
import signal
from pathlib import Path
from typing import Any

import torch

from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.entities import Pretext
from ssltransfer.models import weights
from ssltransfer.stages import pretext
from ssltransfer.training import checkpoint
from ssltransfer.training.task import Task

given = globals()
moment, count = given["moment"], given["count"]
os.environ["SSLTRANSFER_CHECKPOINT_STEPS"] = given["every"]
seen = 0


def now(name: str) -> bool:
    """Whether this is the moment; each call of its own moment counts."""
    global seen
    seen += moment == name
    return bool(moment == name and seen == count)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after_step(task: Task, step: int) -> None:
    with Path(given["log"]).open("a") as log:
        log.write(f"{step}\n")
    if now("step"):
        kill()
    if now("told"):
        os.kill(os.getpid(), signal.SIGTERM)


class Torch:
    """torch, but for `save`: half of the file is on the disk when the process dies."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def save(self, state: Any, file: Path) -> None:
        torch.save(state, file)
        if now("half a checkpoint"):
            os.truncate(file, file.stat().st_size // 2)
            kill()


def killing(name: str, call: Any) -> Any:
    def wrapped(*args: Any, **kw: Any) -> Any:
        if now(name):
            kill()
        return call(*args, **kw)

    return wrapped


Task.after_step = after_step  # type: ignore[method-assign]
checkpoint.torch = Torch()
weights.write_model = killing("before the weights", weights.write_model)
WorkDir.finish = killing("before the manifest", WorkDir.finish)  # type: ignore[method-assign]

spec = Pretext.parse(given["spec"])
pretext.run(
    spec,
    output=Path(given["output"]),
    data=Path(given["data"]),
    val=Path(given["val"]),
    task_data=[Path(path) for path in given.get("task_data", ())],
    threads=1,
)
