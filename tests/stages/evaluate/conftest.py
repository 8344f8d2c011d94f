"""A small chain up to the evaluations: pictures of the world, an index, a random trunk, its features."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ssltransfer.artefacts.work import Work
from ssltransfer.config.entities import Features
from ssltransfer.config.formats import World
from ssltransfer.config.protocols import Pool
from ssltransfer.config.trunks import CaffeNet
from ssltransfer.models.build import build_trunk
from ssltransfer.models.weights import write_model
from ssltransfer.stages.features import run as extract
from ssltransfer.stages.index import run as make_index

TRUNK = CaffeNet(width=0.125, size=64, stem_stride=2)


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


def make_model(folder: Path, seed: int = 0, *, top: bool = False) -> Path:
    """A random network, written as any other model."""
    manifest = folder / "manifest.json"
    with Work("pretext", manifest, "{}", {}) as work:
        work.finish(write_model(folder, build_trunk(TRUNK, top=top, seed=seed), "imagenet", {}))
    return manifest


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    root = tmp_path_factory.mktemp("chain")
    os.environ["SSLTRANSFER_WORKERS"] = "0"
    for split, n in (("train", 60), ("val", 30)):
        spec = World(set="objects", split=split, n=n, size=64, root=str(root / "world"))
        make_index(spec, output=root / "index" / f"{split}.parquet", threads=1)
    model = make_model(root / "pretext" / "tiny")
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
        root / "index" / "train.parquet",
        root / "index" / "val.parquet",
        model,
        make_model(root / "pretext" / "full", top=True),
        root / "features" / "conv4" / "train" / "manifest.json",
        root / "features" / "conv4" / "val" / "manifest.json",
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
