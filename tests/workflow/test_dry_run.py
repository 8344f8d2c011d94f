"""What Snakemake says before any job runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.helpers.workflow import ROOT, command, planned, snakemake, tiny, write_config
from tests.helpers.standins import stand_in

from ssltransfer.artifacts.index import read_index
from ssltransfer.config import read_config
from ssltransfer.stages.index import run as run_index

WHOLE_CHAIN = {
    "index/objects-train",
    "index/objects-val",
    "index/scenes-train",
    "pretext/puzzle",
    "features/puzzle-conv4/objects-train",
    "features/puzzle-conv4/objects-val",
    "features/puzzle-conv4/scenes-train",
    "features/pupil.conv4-max2/objects-train",
    "features/pupil.conv4-max2/objects-val",
    "cluster/puzzle-k4",
    "label/puzzle-k4/objects-train",
    "label/puzzle-k4/scenes-train",
    "student/pupil",
    "evaluate/nearest/puzzle",
    "evaluate/nearest/pupil",
    "report/index",
}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_dry_run_without_config_lists_demo(elsewhere: bool, tmp_path: Path):
    folder = ["--directory", str(tmp_path)] if elsewhere else []
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--nocolor", *folder],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
    )
    assert run.returncode == 0, run.stdout
    assert "profiles/default" in run.stdout
    # Where the demo was made already there is nothing to list but `all`'s own answer.
    assert "report/index.html" in run.stdout or "Nothing to be done" in run.stdout
    assert "MissingInput" not in run.stdout


def test_dry_run_uses_own_config_only(tmp_path: Path):
    """Neither the demo's datasets nor its models are mixed in."""
    write_config(tmp_path, tiny())
    assert planned(tmp_path) == WHOLE_CHAIN


def test_dry_run_refuses_duplicate_keys(tmp_path: Path):
    """Snakemake itself keeps the last of two entries with one name."""
    text = write_config(tmp_path, tiny()).read_text()
    (tmp_path / "config.yaml").write_text(text.replace('"clusters": {', '"clusters": {"puzzle-k4": {"k": 9}, ', 1))
    run = snakemake(tmp_path, "--dry-run", "--cores", "1")
    assert run.returncode != 0
    assert run.stdout.rstrip().endswith("config.yaml: line 1: duplicate key 'puzzle-k4'.")


def test_dry_run_refuses_copied_outputs_of_other_options(tmp_path: Path):
    """Snakemake has no record of copied results, and would take them all."""
    write_config(tmp_path, tiny())
    folder = tmp_path / tiny()["results"]
    dataset = read_config(tmp_path / "config.yaml").datasets["scenes-train"]
    run_index(dataset, output=folder / "index" / "scenes-train.parquet", threads=1)
    assert "index/scenes-train" not in planned(tmp_path)
    write_config(tmp_path, tiny(**{"datasets.scenes-train.num_images": 47}))
    run = snakemake(tmp_path, "--dry-run", "--cores", "1")
    assert run.returncode != 0 and "run again: rm results/index/scenes-train.parquet" in run.stdout
    assert "made with other options, and Snakemake has no record of it" in run.stdout


def test_dry_run_scatters_extraction(tmp_path: Path):
    """With one part there are no part jobs, with three each store has three."""
    write_config(tmp_path, tiny())
    assert planned(tmp_path, "--set-scatter", "features=1") == WHOLE_CHAIN
    stores = [name for name in WHOLE_CHAIN if name.startswith("features/")]
    parts = {f"{store}/{part}-of-3" for store in stores for part in (1, 2, 3)}
    assert planned(tmp_path, "--set-scatter", "features=3") == WHOLE_CHAIN | parts


def test_dry_run_labels_need_no_stored_features(tmp_path: Path):
    write_config(tmp_path, tiny(**{"clusters.puzzle-k4.store_features": False}))
    assert planned(tmp_path) == WHOLE_CHAIN - {"features/puzzle-conv4/scenes-train"}


@pytest.fixture(scope="module")
def papers_setting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins of the data that config/noroozi2018.yaml names."""
    folder = tmp_path_factory.mktemp("noroozi2018")
    stand_in(folder / "data")
    return folder


def of_the_paper(folder: Path, *arguments: str) -> str:
    words = command(*arguments, config=str(ROOT / "config/noroozi2018.yaml"))
    run = subprocess.run(words, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert run.returncode == 0, run.stdout
    return run.stdout


def test_dry_run_of_paper_config_lists_jobs(papers_setting: Path):
    """Ten data sets, two jigsaw and three context networks, HOG and random nets, 14 students and their evaluations."""
    said = of_the_paper(papers_setting, "--dry-run", "--cores", "2", "--quiet", "rules")
    jobs = {name: int(count) for name, count in re.findall(r"^([a-z]+) +(\d+)$", said, re.MULTILINE)}
    config = read_config(ROOT / "config/noroozi2018.yaml")
    assert jobs["index"] == 10
    assert jobs["cluster"] == len(config.clusters) == 12
    assert jobs["student"] == len(config.students)
    assert jobs["evaluate"] == sum(map(len, config.rows.values()))
    assert jobs["total"] == sum(jobs.values()) - jobs["total"]


@pytest.mark.slow
def test_dry_run_of_paper_config_finds_images(papers_setting: Path):
    of_the_paper(papers_setting, "--cores", "2", "--until", "index")
    found = {file.stem: read_index(file) for file in (papers_setting / "results/noroozi2018/index").glob("*.parquet")}
    sizes = {name: len(index) for name, index in found.items()}
    assert sizes.pop("sbd-train") == sizes.pop("voc12-val") == 2
    assert len(sizes) == 8 and set(sizes.values()) == {4}
    assert found["voc12-val"].paths == ["JPEGImages/2009_000003.jpg", "JPEGImages/2009_000004.jpg"]
    assert found["imagenet-val"].classes == ["n01440764", "n01443537"]
    assert found["places-train"].classes == ["a/abbey", "y/yard"]
    assert found["voc07-test"].multi_label is not None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"clusters.puzzle-k4.max_itr": 5},
            "clusters.puzzle-k4.max_itr: unknown key 'max_itr'; did you mean 'max_iter'?",
        ),
        ({"results": "a{b}c"}, "results: it contains a brace, which is a wildcard in Snakemake; rename it"),
    ],
)
def test_dry_run_reports_error_in_one_line(tmp_path: Path, changes: dict[str, object], sentence: str):
    write_config(tmp_path, tiny(**changes))
    run = snakemake(tmp_path, "--cores", "2")
    assert run.returncode == 1
    said = [line for line in run.stdout.splitlines() if line and "profile" not in line]
    assert len(said) == 1
    assert sentence in said[0]
    assert not (tmp_path / "results").exists()


def test_dry_run_refuses_nodes_on_which_slurm_would_start_nothing(tmp_path: Path):
    write_config(tmp_path, tiny())
    run = snakemake(tmp_path, "--cores", "2", "--quiet", "all", "--set-resources", "pretext:nodes=2")
    assert run.returncode == 1 and not (tmp_path / "results").exists()
    assert "ssltransfer: a job on 2 nodes needs the resources mpi and tasks_per_node too" in run.stdout


def test_slurm_profile_sets_resources_of_every_stage():
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    texts = [file.read_text() for file in (ROOT / "workflow/rules").glob("*.smk")]
    rules = {name: body for text in texts for name, body in re.findall(r"^rule (\w+):\n((?:(?: .*)?\n)+)", text, re.M)}
    del rules["report"]
    assert set(profile["set-resources"]) == set(rules)
    assert set(profile["set-threads"]) == set(rules)
    on_gpu = {name for name, given in profile["set-resources"].items() if given.get("gpu")}
    assert on_gpu == {name for name, body in rules.items() if re.search(r"^\s+gpu=1,$", body, re.M)}
    assert profile["set-resources"]["features_shard"] == profile["set-resources"]["features"]
    assert profile["set-threads"]["features_shard"] == profile["set-threads"]["features"]


def test_dry_run_refuses_missing_weights_before_any_job(tmp_path: Path):
    """One sentence at once, and no job runs; a job's own process does not check again."""
    teacher = {"task": {"name": "imported", "file": "teacher.pth"}, "backbone": tiny()["students"]["pupil"]["backbone"]}
    write_config(tmp_path, tiny(**{"pretexts.puzzle": teacher}))
    run = snakemake(tmp_path, "--cores", "1")
    said = [line for line in run.stdout.splitlines() if line and "profile" not in line]
    assert run.returncode == 1 and not (tmp_path / "results").exists()
    assert said == [
        "ssltransfer: pretexts.puzzle.task.file: teacher.pth: no such file, or not readable; check the path."
    ]


def test_dry_run_shows_priorities_of_imports_and_baselines(tmp_path: Path):
    """Imports run before trainings, baselines after everything else."""
    write_config(tmp_path, tiny(**{"evaluations.nearest.baselines": ["random", "supervised"]}))
    run = snakemake(tmp_path, "--dry-run", "--cores", "1")
    priorities = {}
    for body in re.findall(r"^rule \w+:\n((?: .*\n)+)", run.stdout, re.M):
        output = re.search(r"^    output: results/(.*?)(?:,.*)?$", body, re.M)
        priority = re.search(r"^    priority: (.*)$", body, re.M)
        if output:
            priorities[output[1].removesuffix("/manifest.json")] = int(priority[1]) if priority else 0
    last = {name for name, priority in priorities.items() if priority == -1}
    assert {name.split("/")[0] for name in last} == {"pretext", "student", "features", "evaluate"}
    assert all("random-" in name or "supervised-" in name for name in last)
    assert all(priorities[name] != -1 for name in priorities if "random-" not in name and "supervised-" not in name)


def test_dry_run_of_results_alone_does_not_plan_demo(tmp_path: Path):
    write_config(tmp_path, {"results": "out"})
    run = snakemake(tmp_path, "--dry-run", "--cores", "1")
    assert run.returncode == 1 and "the configuration has no datasets and no models" in run.stdout


def test_dry_run_in_another_folder_finds_demo(tmp_path: Path):
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "-n", "-d", str(tmp_path)]
    run = subprocess.run([*words, "--cores", "1"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert run.returncode == 0 and "results/demo/report/index.html" in run.stdout


def test_dry_run_with_features_of_a_file_needs_no_model(tmp_path: Path):
    """Clusters, labels and a distilled student read the file, in one job per dataset even with shards."""
    np.savez(tmp_path / "clip.npz", path=np.array(["a.png"]), feature=np.ones((1, 4)))
    config = tiny(**{"features.puzzle-conv4": {"file": "clip.npz"}, "pretexts": {}, "evaluations": {}})
    distilled = {"name": "compress-1q", "teacher": "puzzle-conv4", "precompute_teacher": True}
    config["students"]["distilled"] = {**config["students"]["pupil"], "method": distilled}
    write_config(tmp_path, config)
    expected = {job for job in WHOLE_CHAIN if not job.startswith(("pretext", "evaluate", "features"))}
    expected |= {f"features/puzzle-conv4/{name}" for name in ("objects-train", "scenes-train")} | {"student/distilled"}
    assert planned(tmp_path, "--set-scatter", "features=2") == expected
