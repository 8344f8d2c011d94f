"""From videos to a trained pretext through Snakemake: what is planned, what is made, what a change reruns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.helpers.workflow import planned, results, snakemake, write_config

from ssltransfer.artifacts.files import file_digest, read_json
from ssltransfer.artifacts.index import read_index
from toyworld import generate

LABELS = {"size": [96, 128], "foreground_range": [0.01, 0.9]}
CHAIN = {"index/films", "index/more-films", "motion/films", "motion/more-films", "pretext/moves", "report/index"}


def of_videos(**motion: Any) -> dict[str, Any]:
    videos = {"format": "video", "root": "world", "motion": LABELS | motion}
    return {
        "results": "results",
        "datasets": {"films": videos | {"split": "train"}, "more-films": videos | {"split": "val"}},
        "pretexts": {
            "moves": {
                "task": {"name": "motion-segmentation", "input": [96, 128], "hidden_dim": 16},
                "backbone": {"name": "caffenet", "width_mult": 0.125, "img_size": 64, "stem_stride": 2, "bn": True},
                "data": "films",
                "val": "more-films",
                "schedule": {"steps": 6, "batch_size": 4, "lr": 0.01},
            }
        },
    }


def test_motion_rule_runs_before_pretext(tmp_path: Path):
    write_config(tmp_path, of_videos())
    (tmp_path / "world").mkdir()
    assert planned(tmp_path) == CHAIN


@pytest.mark.slow
def test_motion_chain_trains_from_videos(tmp_path: Path):
    for split, number in (("train", 6), ("val", 3)):
        generate("clips", tmp_path / "world", split=split, num_images=number, size=48)
    write_config(tmp_path, of_videos())
    run = snakemake(tmp_path, "--cores", "2")
    assert run.returncode == 0, run.stdout
    made = results(tmp_path)
    clips = read_index(made / "motion/films.parquet")
    assert clips.targets is not None and clips.targets.kind == "motion" and 4 <= len(clips) <= 6
    manifest = read_json(made / "pretext/moves/manifest.json")
    assert manifest["inputs"]["data"] == [file_digest(made / "motion/films.parquet")]
    assert manifest["summary"].keys() >= {"loss", "iou", "val_loss", "val_iou", "chance_loss"}
    assert (made / "report/index.html").is_file()
    assert planned(tmp_path) == set()
    # Labels of another kind are found in the same index, and nothing else of the same labels runs again.
    write_config(tmp_path, of_videos(default_label="foreground"))
    assert planned(tmp_path) == {"motion/films", "motion/more-films", "pretext/moves", "report/index"}
    write_config(tmp_path, of_videos(clip_length=10, flow="dis"))
    assert planned(tmp_path) == set()
