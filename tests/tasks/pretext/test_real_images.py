"""Pretexts learn something of real images that holds for others: a few minutes each on two slow cores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssltransfer.config.entities import Pretext
from ssltransfer.config.formats import ImageFolder
from ssltransfer.stages import index as index_stage
from ssltransfer.stages import pretext

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def tiny_imagenet(real_objects: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Indexes of 4,800 images of 16 classes to learn on and 800 others."""
    folder = tmp_path_factory.mktemp("tiny")
    found = {}
    for split in ("train", "val"):
        found[split] = folder / f"{split}.parquet"
        index_stage.run(ImageFolder(root=str(real_objects), split=split), output=found[split], threads=2)
    return found


def last_row(folder: Path, tiny_imagenet: dict[str, Path], **spec: Any) -> dict[str, float]:
    model = Pretext.model_validate({"data": "train", "val": "val", **spec})
    output = folder / "manifest.json"
    pretext.run(model, output=output, data=tiny_imagenet["train"], val=tiny_imagenet["val"], threads=2)
    row: dict[str, float] = json.loads((folder / "curve.jsonl").read_text().splitlines()[-1])
    print(row)
    return row


def test_jigsawpp_generalizes(tmp_path: Path, tiny_imagenet: dict[str, Path]):
    """All 701 permutations, up to two occluders; chance is ln 701 = 6.55 and 0.14 %."""
    task = {
        "name": "jigsaw++",
        "resize": 84,
        "tiles": {"crop": 84, "tile": 24, "channel_shift": 1, "stem_stride": 1},
        "hidden_dim": 1024,
        "dropout": 0,
        "bn": True,
    }
    row = last_row(
        tmp_path,
        tiny_imagenet,
        task=task,
        backbone={"name": "caffenet", "width_mult": 0.25, "img_size": 96, "stem_stride": 2},
        schedule={"steps": 450, "batch_size": 128, "lr": 0.001, "optimizer": "adam", "weight_decay": 0},
    )
    assert row["val_loss"] < 6.553 - 0.1 and row["val_accuracy"] > 0.003


def test_rotation_generalizes(tmp_path: Path, tiny_imagenet: dict[str, Path]):
    """Chance is ln 4 = 1.386 and 25 %."""
    row = last_row(
        tmp_path,
        tiny_imagenet,
        task={"name": "rotation", "augment": "crop", "hidden_dim": 256},
        backbone={"name": "caffenet", "width_mult": 0.25, "img_size": 64, "stem_stride": 2},
        schedule={"epochs": 4, "batch_size": 32, "lr": 0.001, "optimizer": "adam", "weight_decay": 0},
    )
    assert row["val_loss"] < 1.386 - 0.07 and row["val_accuracy"] > 0.33


NINE = {
    "resize": 96,
    "tiles": {"crop": 84, "tile": 24, "jitter": 4, "channel_shift": 0, "stem_stride": 1},
    "embed_dim": 128,
    "hidden_dim": 512,
    "dropout": 0,
    "bn_momentum": 0.1,
}


@pytest.mark.parametrize(
    ("task", "loss", "accuracy"),
    [
        ({"name": "jigsaw-kolesnikov", "permutations": 24, **NINE}, 3.178 - 0.1, 0.07),  # ln 24, 4 %
        ({"name": "relative-patch-location", **NINE}, 2.079 - 0.05, 0.17),  # ln 8, 12.5 %
        (
            {"name": "exemplar", "num_views": 4, "embed_dim": 128, "min_scale": 0.2},
            0.5 - 0.03,
            0.1,
        ),  # the margin, 2.4 %
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_kolesnikov_tasks_generalize(
    task: dict[str, Any], loss: float, accuracy: float, tmp_path: Path, tiny_imagenet: dict[str, Path]
):
    row = last_row(
        tmp_path,
        tiny_imagenet,
        task=task,
        backbone={"name": "caffenet", "width_mult": 0.25, "img_size": 64, "stem_stride": 2, "bn": True},
        schedule={"steps": 300, "batch_size": 32, "lr": 0.02, "lr_schedule": "cosine", "weight_decay": 0.0001},
    )
    assert row["val_loss"] < loss and row["val_accuracy"] > accuracy


SMALL: dict[str, Any] = {
    "backbone": {"name": "caffenet", "width_mult": 0.25, "img_size": 64, "stem_stride": 2, "bn": True},
    "schedule": {
        "steps": 300,
        "batch_size": 32,
        "lr": 0.001,
        "optimizer": "adam",
        "weight_decay": 0,
        "lr_schedule": "cosine",
    },
}
HEAD = {"head_dims": (128, 64), "bottleneck_dim": 32}


def chance_loss(folder: Path) -> float:
    found: float = json.loads((folder / "manifest.json").read_text())["summary"]["chance_loss"]
    return found


def test_colorization_beats_the_best_constant(tmp_path: Path, tiny_imagenet: dict[str, Path]):
    """The best constant has 4.10; the first loss is ln 313 = 5.75."""
    row = last_row(tmp_path, tiny_imagenet, task={"name": "colorization", "resize": 64, "hidden_dim": 256}, **SMALL)
    assert 3.9 < chance_loss(tmp_path) < 4.3 and row["val_loss"] < chance_loss(tmp_path) - 0.2


def test_exemplar_patches_generalizes(tmp_path: Path, tiny_imagenet: dict[str, Path]):
    """Unrelated vectors have 0.5; a random network knows 72 % of the views."""
    task = {"name": "exemplar-patches", "resize": 64, "patch": 32, "head": HEAD}
    row = last_row(tmp_path, tiny_imagenet, task=task, **SMALL)
    assert row["val_loss"] < 0.22 and row["val_accuracy"] > 0.83


@pytest.mark.parametrize("harmonized", [False, True])
def test_relative_position_generalizes(harmonized: bool, tmp_path: Path, tiny_imagenet: dict[str, Path]):
    """Chance is 2.02 and about 17 %."""
    cut = {
        "patch": 28,
        "gap": 12,
        "jitter": 3,
        "area_range": (5476, 7000),
        "crop_size": 74,
        "grids_per_image": 1,
        "downsample_prob": 0.0,
    }
    task = {"name": "relative-position-residual", "lightness_input": harmonized, "hidden_dim": 128, "head": HEAD, **cut}
    row = last_row(tmp_path, tiny_imagenet, task=task, **SMALL)
    assert row["val_loss"] < chance_loss(tmp_path) - 0.06 and row["val_accuracy"] > 0.21
