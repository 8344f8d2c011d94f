"""Runs evaluations in processes that are killed half-way, or as one of two processes; started by test_laws.py.

    laws_driver.py kill PLAN.json    each whole, then killed and run again; prints a JSON line, what became of each
    laws_driver.py pair PLAN.json    all of them, as the process that RANK and WORLD_SIZE say
    laws_driver.py devices PLAN.json    all of them, by the command for two devices

For kills one process imports torch and forks before it computes: an evaluation then costs a second, not five.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ssltransfer import cli
from ssltransfer.artifacts import features as stores
from ssltransfer.config.entities import EvaluationSpec, Features
from ssltransfer.protocols import layers, logreg, probes
from ssltransfer.protocols.base import PROTOCOLS
from ssltransfer.stages import evaluate, features
from ssltransfer.training.checkpoint import Checkpoint
from ssltransfer.training.launch import shutdown

Job = dict[str, Any]


def given(job: Job, output: Path) -> dict[str, Path]:
    """Inputs of an evaluation, with the features that it reads."""
    inputs = {role: Path(path) for role, path in job["inputs"].items()}
    for role in inputs.keys() & {"train", "test"} if "features" in job else ():
        stored = output.parent / "features" / role / "manifest.json"
        paths = {"model": inputs["model"], "data": inputs[role], "output": stored}
        features.run(Features.parse(job["features"]), threads=1, **paths)
        inputs[f"{role}_features"] = stored
    return inputs


def measure(job: Job, output: Path) -> None:
    """One evaluation."""
    threads = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    evaluate.run(EvaluationSpec.parse(job["spec"]), output=output, threads=threads, **given(job, output))


def command(job: Job, output: Path) -> None:
    """One evaluation by the command for two devices."""
    words = {"--spec": job["spec"], "--output": output, "--threads": 1, "--devices": 2}
    words |= {f"--{role.replace('_', '-')}": path for role, path in given(job, output).items()}
    assert cli.main(["evaluate", *(str(word) for pair in words.items() for word in pair)]) == 0


def counted(counter: Path, last: int) -> None:
    """Count checkpoints, and chunks of features where there are none; SIGKILL after number `last`."""
    begun = 0

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal begun
            found = real(*args)
            begun += 1
            counter.write_text(str(begun))
            if begun == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return call

    Checkpoint.save = counting(Checkpoint.save)  # type: ignore[method-assign]
    stores.FeatureStore.write = counting(stores.FeatureStore.write)  # type: ignore[method-assign]


def child(job: Job, output: Path, last: int) -> tuple[int, int]:
    """Exit status of one evaluation, -9 if killed, and how many times it saved something."""
    counter = output.with_name("count")
    output.parent.mkdir(parents=True, exist_ok=True)
    counter.write_text("0")
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            os.dup2(os.open(output.with_name("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
            counted(counter, last)
            measure(job, output)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            status = 1
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), int(counter.read_text())


def killed(job: Job) -> Job:
    """Whole, killed after half of what is saved on the way, and again."""
    folder = Path(job["output"]).parent
    whole, broken = (folder / how / job["name"] / "m.json" for how in ("whole", "broken"))
    first = child(job, whole, 0)
    cut = child(job, broken, last=max(1, first[1] // 2))
    left = [path.name for path in broken.parent.rglob("work/*/*") if path.name != "lock"]
    again = child(job, broken, 0)
    return {
        "name": job["name"],
        "statuses": [first[0], cut[0], again[0]],
        "computed": [first[1], again[1]],
        "left": left,
    }


def main(mode: str, plan: Path) -> None:
    jobs = json.loads(plan.read_text())
    if mode == "pair":
        layers.BATCH = probes.BATCH = 7  # so that both processes have batches to test
    if mode != "kill":
        for job in jobs:
            (measure if mode == "pair" else command)(job, Path(job["output"]))
        shutdown()
        return
    assert Checkpoint(Path("x")).due(1), "set SSLTRANSFER_CHECKPOINT_STEPS=1"
    for job in jobs:
        PROTOCOLS[type(EvaluationSpec.parse(job["spec"]).protocol)]
    torch.set_num_threads(1)
    stores.CHUNK_BYTES = 1 << 13
    logreg.SEGMENT = 5
    print(json.dumps([killed(job) for job in jobs]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
