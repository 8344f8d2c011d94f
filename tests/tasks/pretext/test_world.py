"""What short trainings learn of drawn objects holds for objects that were never seen: minutes each on a slow core."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ssltransfer.artifacts.files import read_json
from ssltransfer.config.entities import Pretext
from ssltransfer.config.formats import Synthetic
from ssltransfer.stages import index as index_stage
from ssltransfer.stages import pretext

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

NINE = {
    "resize": 96,
    "tiles": {"crop": 84, "tile": 24, "jitter": 4, "channel_shift": 0, "stem_stride": 1},
    "embed_dim": 128,
    "hidden_dim": 512,
    "dropout": 0,
    "bn_momentum": 0.1,
}


CAFFENET = {"name": "caffenet", "width_mult": 0.25, "img_size": 64, "stem_stride": 2, "bn": True}
SGD = {"steps": 200, "batch_size": 32, "lr": 0.02, "lr_schedule": "cosine", "weight_decay": 0.0001}
ADAM = {"steps": 200, "batch_size": 32, "lr": 0.001, "lr_schedule": "cosine", "weight_decay": 0, "optimizer": "adam"}
HEAD = {"head_dims": (64, 32), "bottleneck_dim": 16}
CUT = {
    "patch": 28,
    "gap": 12,
    "jitter": 3,
    "area_range": (5476, 7000),
    "crop_size": 74,
    "grids_per_image": 1,
    "downsample_prob": 0.0,
}
POSITION = {"name": "relative-position-residual", "hidden_dim": 128, "head": HEAD, **CUT}
COLORS = {"name": "colorization", "resize": 64, "hidden_dim": 128, "prior": "uniform"}
ROTATION = {"name": "rotation", "augment": "crop", "hidden_dim": 128}


def drawn(folder: Path, kind: str) -> dict[str, Path]:
    """Indexes of 960 images to learn on and 240 others."""
    for split, n in (("train", 960), ("val", 240)):
        spec = Synthetic(root=str(folder / "world"), subset=kind, split=split, num_images=n)
        index_stage.run(spec, output=folder / f"{split}.parquet", threads=1)
    return {split: folder / f"{split}.parquet" for split in ("train", "val")}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return drawn(tmp_path_factory.mktemp("world"), "objects")


def learned(folder: Path, images: dict[str, Path], task: dict[str, Any], schedule: dict[str, Any]) -> dict[str, float]:
    """The last row of the curve."""
    given = {"task": task, "backbone": CAFFENET, "data": "train", "val": "val", "schedule": schedule}
    output = folder / "manifest.json"
    spec = Pretext.model_validate(given)
    pretext.run(spec, output=output, data=images["train"], val=images["val"], threads=1)
    row: dict[str, float] = json.loads((folder / "curve.jsonl").read_text().splitlines()[-1])
    chance_loss = read_json(output)["summary"]["chance_loss"]
    print({key: value for key, value in row.items() if "val" in key}, chance_loss)
    return row | {"chance_loss": chance_loss}


# 480 steps on twice as many images ended at 1.34 (60 %), 1.82 (29 %) and 0.358 (72 %).
@pytest.mark.parametrize(
    ("task", "schedule", "chance_loss", "gain", "chance"),
    [
        ({"name": "jigsaw-kolesnikov", "permutations": 24, **NINE}, SGD, math.log(24), 0.7, 1 / 24),
        ({"name": "relative-patch-location", **NINE}, SGD, math.log(8), 0.08, 1 / 8),
        ({"name": "exemplar", "num_views": 4, "embed_dim": 128, "min_scale": 0.2}, SGD, 0.5, 0.06, 3 / 127),
        (ROTATION, ADAM, math.log(4), 0.1, 1 / 4),
        (POSITION, ADAM, math.log(8), 0.1, 1 / 8),
        ({"name": "exemplar-patches", "resize": 64, "patch": 32, "head": HEAD}, ADAM, 0.5, 0.2, 1 / 32),
    ],
    ids=lambda value: value.get("name", "") if isinstance(value, dict) else "",
)
def test_task_generalizes_to_new_images(
    task: dict[str, Any],
    schedule: dict[str, Any],
    chance_loss: float,
    gain: float,
    chance: float,
    tmp_path: Path,
    images: dict[str, Path],
) -> None:
    row = learned(tmp_path, images, task, schedule)
    assert row["val_loss"] < chance_loss - gain
    assert row["val_accuracy"] > 1.7 * chance


def test_multi_task_generalizes_in_all_tasks(tmp_path: Path, images: dict[str, Path]) -> None:
    tasks = {"turn": {"weight": 1, "task": ROTATION}, "rp": {"weight": 1, "task": POSITION}}
    row = learned(
        tmp_path, images, {"name": "multi-task", "normalization_from": "turn", "tasks": tasks}, {**ADAM, "steps": 400}
    )
    assert row["turn.val_loss"] < math.log(4) - 0.1
    assert row["rp.val_loss"] < math.log(8) - 0.1


def test_colorization_generalizes(tmp_path: Path) -> None:
    """Objects have any color; sky, grass and sand do not. Chance is the best answer that is the same everywhere.

    All colors weigh alike: few images know few rare ones, whose weight would make up most of a validation loss.
    """
    row = learned(tmp_path, drawn(tmp_path, "scenes"), COLORS, ADAM)
    assert row["val_loss"] < row["chance_loss"] - 0.1
