"""What runs again after a change, on a finished run; its folders are named as badly as a file system allows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.helpers.workflow import ROOT, compared, planned, results, snakemake, tiny, write_config

pytestmark = pytest.mark.slow

UGLY = 'été "d\'hier"; $(id) `x` & #1'
PLACES = {"results": f"{UGLY}/results"} | {
    f"datasets.{name}.root": f"{UGLY}/world" for name in ("objects-train", "objects-val", "scenes-train")
}
OF_THE_PUPIL = {
    "features/pupil.conv4-max2/objects-train",
    "features/pupil.conv4-max2/objects-val",
    "evaluate/nearest/pupil",
    "report/index",
    "export/pupil",
}
OF_THE_CLUSTERING = {"label/puzzle-k4/objects-train", "label/puzzle-k4/scenes-train", "student/pupil", *OF_THE_PUPIL}
OF_THE_PUZZLE = {
    "features/puzzle-conv4/objects-train",
    "features/puzzle-conv4/objects-val",
    "features/puzzle-conv4/scenes-train",
    "evaluate/nearest/puzzle",
    "cluster/puzzle-k4",
    *OF_THE_CLUSTERING,
}


def config(**changes: Any) -> dict[str, Any]:
    return tiny(**PLACES, **{"exports": {"pupil.safetensors": "pupil"}} | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole chain has run."""
    folder = tmp_path_factory.mktemp("finished")
    write_config(folder, config())
    run = snakemake(folder, "--cores", "2")
    assert run.returncode == 0, run.stdout
    return folder


@pytest.mark.parametrize(
    ("changes", "reruns"),
    [
        ({"clusters.puzzle-k4.k": 5}, {"cluster/puzzle-k4", *OF_THE_CLUSTERING}),
        ({"students.pupil.schedule.epochs": 2}, {"student/pupil", *OF_THE_PUPIL}),
        ({"pretexts.puzzle.seed": 1}, {"pretext/puzzle", *OF_THE_PUZZLE}),
        (
            {"datasets.scenes-train.num_images": 49},
            {
                "index/scenes-train",
                "features/puzzle-conv4/scenes-train",
                "label/puzzle-k4/scenes-train",
                "student/pupil",
                *OF_THE_PUPIL,
            },
        ),
        # The evaluation reads conv4 of the puzzle too, and this was the entry that made it.
        (
            {"features.puzzle-conv4.layer": "conv3"},
            {
                "features/puzzle-conv4/objects-train",
                "features/puzzle-conv4/scenes-train",
                "features/puzzle.conv4-max2/objects-train",
                "features/puzzle.conv4-max2/objects-val",
                "evaluate/nearest/puzzle",
                "cluster/puzzle-k4",
                *OF_THE_CLUSTERING,
            },
        ),
        # A model more in an evaluation: the others are not measured again.
        (
            {"evaluations.nearest.baselines": ["random"]},
            {
                "pretext/random-caffenet-w0.125-64px-s2",
                "features/random-caffenet-w0.125-64px-s2.conv4-max2/objects-train",
                "features/random-caffenet-w0.125-64px-s2.conv4-max2/objects-val",
                "evaluate/nearest/random-caffenet-w0.125-64px-s2",
                "report/index",
            },
        ),
        ({"report": {"title": "{braces} and 'quotes'"}}, {"report/index"}),
        ({"exports": {"pupil.safetensors": "puzzle"}}, {"export/pupil"}),
        ({"exports": {"pupil.pt2": {"model": "pupil", "layer": "conv4"}}}, {"export/pupil"}),
    ],
    ids=["k", "epochs", "seed", "images", "layer", "another model", "title", "exported model", "exported layer"],
)
def test_change_reruns_entry_and_dependents(
    finished: Path, changes: dict[str, Any], reruns: set[str]
):
    write_config(finished, config(**changes))
    assert planned(finished) == reruns


def test_exported_file_and_its_card_have_the_results_of_the_run(finished: Path):
    file, made = (results(finished) / name for name in ("export/pupil.safetensors", "student/pupil/backbone.safetensors"))
    exported, tensors = safetensors.torch.load_file(file), safetensors.torch.load_file(made)
    assert exported.keys() == tensors.keys() and all(torch.equal(exported[name], tensors[name]) for name in tensors)
    assert "| nearest | knn |" in file.with_name(f"{file.name}.md").read_text()


def test_equivalent_config_reruns_nothing(finished: Path):
    """Order of keys, 1 for 1.0, a default written out, and code that was only touched."""
    same = config(
        **{
            "students.pupil.schedule": {"lr": 1e-2, "batch_size": 16, "epochs": 1.0, "momentum": 0.9},
            "clusters.puzzle-k4.seed": 0,
        }
    )
    reordered = {section: same[section] for section in reversed(same)}
    reordered["datasets"] = dict(reversed(same["datasets"].items()))
    write_config(finished, reordered)
    for file in ("src/ssltransfer/stages/student.py", "workflow/rules/student.smk"):
        (ROOT / file).touch()
    assert planned(finished) == set()


def test_printed_command_gives_same_bytes(finished: Path):
    """And Snakemake takes the result for its own: the same bytes upstream rerun nothing downstream."""
    write_config(finished, config())
    before = compared(finished)
    output = snakemake(finished, "--dry-run", "--cores", "2", "--printshellcmds", "--forcerun", "student").stdout
    printed = re.findall(
        r"^Shell command: (ssltransfer student .*)$|^ +(ssltransfer student .*)$", output, re.MULTILINE
    )
    shutil.rmtree(results(finished) / "student")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-c", "".join(printed[0])],
        cwd=finished,
        env={**os.environ, "PATH": path},
        check=True,
    )
    assert compared(finished) == before
    assert planned(finished) == set()


def test_unchanged_output_stops_reruns(finished: Path):
    """A recomputed stage with the same bytes does not rerun the stages after it."""
    write_config(finished, config())
    before = compared(finished)
    run = snakemake(finished, "--cores", "2", "--forcerun", "cluster", "--until", "cluster")
    assert run.returncode == 0, run.stdout
    assert compared(finished) == before
    assert planned(finished) == set()


def test_snakemake_report_has_caption(finished: Path):
    write_config(finished, config())
    run = snakemake(finished, "--report", "report.html")
    assert run.returncode == 0, run.stdout
    caption = (ROOT / "workflow/captions/report.rst").read_text().strip()
    assert caption in (finished / "report.html").read_text(encoding="utf-8")
