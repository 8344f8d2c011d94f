"""Killed at any moment, the same command ends with the bytes of an undisturbed run."""

from __future__ import annotations

import multiprocessing
import runpy
from pathlib import Path

import pytest

from ssltransfer.config.entities import Pretext
from tests.helpers import HELPERS
from tests.helpers.small_tasks import TASKS

# Children are forks of a server that has torch loaded, so that a kill costs no start; said before anything starts it.
multiprocessing.set_forkserver_preload(["ssltransfer.stages.features", "ssltransfer.stages.pretext"])

EVERY = 3  # steps between checkpoints
STEPS = 11
SPECS = {
    name: Pretext.model_validate(
        {
            "task": task,
            "backbone": {"name": "caffenet", "width_mult": 0.125, "img_size": 48, "stem_stride": 2},
            "data": "x",
            "val": "y",
            # Beyond an epoch of 48 images, with dropout, momentum and a learning rate that moves.
            "schedule": {
                "steps": STEPS,
                "batch_size": 8,
                "lr": 0.02,
                "lr_schedule": "cosine",
                "warmup": 2,
                "micro_batch_size": 4,
            },
        }
    )
    for name, task in TASKS.items()
}


# One of each kind.
OTHERS = sorted({task["name"]: name for name, task in TASKS.items() if name != "jigsaw++"}.values())


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    return multiprocessing.get_context("forkserver")


class Job:
    """One output, and how often it was tried."""

    def __init__(
        self,
        context: multiprocessing.context.ForkServerContext,
        folder: Path,
        data: Path,
        val: Path,
        task: str = "jigsaw++",
    ):
        self.context, self.folder, self.data, self.val, self.spec = context, folder, data, val, SPECS[task]

    def run(self, moment: str = "", count: int = 1) -> int | None:
        """Start it and wait for its end; the exit code."""
        given = {"spec": self.spec.canonical(), "data": str(self.data), "val": str(self.val)}
        given |= {
            "every": str(EVERY) if moment else "0",
            "output": str(self.folder / "manifest.json"),
            "log": str(self.folder / "log"),
        }
        self.folder.mkdir(exist_ok=True)
        process = self.context.Process(
            target=runpy.run_path,
            args=(str(HELPERS / "killed_pretext.py"), {**given, "moment": moment, "count": count}),
        )
        process.start()
        process.join(120)
        return process.exitcode

    @property
    def steps(self) -> list[int]:
        """The steps that were computed, in turn."""
        if not (self.folder / "log").exists():
            return []
        return [int(line) for line in (self.folder / "log").read_text().split()]

    def results(self) -> dict[str, bytes]:
        """What equal runs must have equal."""
        names = ("manifest.json", "backbone.safetensors", "backbone.json", "curve.jsonl")
        return {name: (self.folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def undisturbed(
    processes: multiprocessing.context.ForkServerContext,
    tmp_path_factory: pytest.TempPathFactory,
    objects_path: Path,
    objects_val_path: Path,
) -> dict[str, bytes]:
    job = Job(processes, tmp_path_factory.mktemp("undisturbed"), objects_path, objects_val_path)
    assert job.run() == 0
    assert job.steps == list(range(STEPS))
    return job.results()


@pytest.mark.parametrize(
    "kills",
    [
        # before any checkpoint, between two, while the first is written
        [("step", 2), ("step", 5), ("half a checkpoint", 1)],
        # while the one after the last step is written, then twice while it exports
        [("half a checkpoint", 4), ("before the weights", 1), ("before the manifest", 1)],
    ],
    ids=lambda kills: ", ".join(f"{moment} {count}" for moment, count in kills),
)
def test_pretext_killed_and_resumed_gives_the_same_bytes(
    kills: list[tuple[str, int]],
    undisturbed: dict[str, bytes],
    processes: multiprocessing.context.ForkServerContext,
    tmp_path: Path,
    objects_path: Path,
    objects_val_path: Path,
):
    job = Job(processes, tmp_path / "out", objects_path, objects_val_path)
    for moment, count in kills:
        before = len(job.steps)
        assert job.run(moment, count) == -9
        assert not (job.folder / "manifest.json").exists()
        if moment == "before the manifest":
            assert len(job.steps) == before  # a job killed while it exports does not train again
    assert job.run() == 0
    assert job.results() == undisturbed
    assert set(job.steps) == set(range(STEPS))
    assert len(job.steps) - STEPS <= EVERY * len(kills)  # no kill costs more than one interval
    assert not list((job.folder / "work").glob("*/.*.partial"))


def test_pretext_saves_on_sigterm(
    undisturbed: dict[str, bytes],
    processes: multiprocessing.context.ForkServerContext,
    tmp_path: Path,
    objects_path: Path,
    objects_val_path: Path,
):
    job = Job(processes, tmp_path / "out", objects_path, objects_val_path)
    assert job.run("told", 5) == 143
    assert not (job.folder / "manifest.json").exists()
    assert job.run("told", 2) == 143
    assert job.run() == 0
    assert job.steps == list(range(STEPS))  # nothing twice
    assert job.results() == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("task", OTHERS)
def test_other_tasks_resume_with_the_same_bytes(
    task: str,
    processes: multiprocessing.context.ForkServerContext,
    tmp_path: Path,
    objects_path: Path,
    objects_val_path: Path,
):
    whole, cut = (Job(processes, tmp_path / name, objects_path, objects_val_path, task) for name in ("whole", "cut"))
    assert whole.run() == 0
    assert cut.run("step", 5) == -9
    assert cut.run() == 0
    assert cut.results() == whole.results()
