"""A small chain up to the evaluations, and sets with boxes, masks and depth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ssltransfer.config.entities import Features
from ssltransfer.config.protocols import Pool
from ssltransfer.stages.features import run as extract
from tests.helpers.protocol_inputs import make_model, make_sets


@dataclass(frozen=True)
class Chain:
    """Paths of what the evaluations read."""

    root: Path
    train: Path
    test: Path
    model: Path
    full_model: Path
    train_features: Path
    test_features: Path


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    root = tmp_path_factory.mktemp("chain")
    os.environ["SSLTRANSFER_WORKERS"] = "0"
    train, test = make_sets(root / "index", "objects", {"train": 60, "val": 30}, 64)
    model = make_model(root / "pretext" / "tiny", include_top=False)
    for split in ("train", "val"):
        extract(
            Features(model="tiny", layer="conv4", pool=Pool(max=3)),
            model=model,
            data=root / "index" / f"{split}.parquet",
            output=root / "features" / "conv4" / split / "manifest.json",
            threads=1,
        )
    return Chain(
        root,
        train,
        test,
        model,
        make_model(root / "pretext" / "full"),
        root / "features" / "conv4" / "train" / "manifest.json",
        root / "features" / "conv4" / "val" / "manifest.json",
    )


@pytest.fixture(scope="session")
def voc(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """40 training and 24 test images with VOC's labels, the short side 80."""
    return make_sets(tmp_path_factory.mktemp("voc"), "voc", {"trainval": 40, "test": 24}, 80)


@pytest.fixture(scope="session")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """16 and 8 with boxes, the short side 64."""
    return make_sets(tmp_path_factory.mktemp("boxes"), "voc", {"trainval": 16, "test": 8}, 64, targets="boxes")


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """72 and 24 with masks, the short side 64."""
    return make_sets(tmp_path_factory.mktemp("masks"), "voc", {"trainval": 72, "test": 24}, 64, targets="masks")


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """160 and 30 rooms with depth, the short side 48."""
    return make_sets(tmp_path_factory.mktemp("rooms"), "rgbd", {"train": 160, "test": 30}, 48, targets="depth")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
