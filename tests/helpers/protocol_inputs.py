"""Inputs of the tests: models with random weights, indexes of synthetic images, contexts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.backbones import BackboneOptions, CaffeNet
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.formats import Synthetic
from ssltransfer.config.protocols import ProtocolOptions
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import write_model
from ssltransfer.protocols.base import EvalContext
from ssltransfer.stages.index import run as make_index
from ssltransfer.training.devices import plan_devices

BACKBONE = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2)


def make_model(folder: Path, options: BackboneOptions = BACKBONE, *, include_top: bool = True, seed: int = 0) -> Path:
    """A random network, written as any other model; returns its manifest."""
    with WorkDir("pretext", folder / "manifest.json", "{}", {}) as work:
        work.finish(write_model(folder, build_backbone(options, include_top=include_top, seed=seed), "imagenet", {}))
    return work.output


def make_sets(root: Path, kind: str, splits: dict[str, int], size: int, **options: Any) -> tuple[Path, Path]:
    """Indexes of so many images of two splits of the embedded world."""
    for split, n in splits.items():
        spec = Synthetic(subset=kind, split=split, num_images=n, size=size, root=str(root / "world"), **options)
        make_index(spec, output=root / f"{split}.parquet", threads=1)
    train, test = (root / f"{split}.parquet" for split in splits)
    return train, test


def context_of(protocol: ProtocolOptions, train: Index | Path, test: Index | Path, folder: Path) -> EvalContext:
    """The context of an evaluation on one thread; `folder` takes the place of the model's manifest too."""
    sets = [one if isinstance(one, Index) else read_index(one) for one in (train, test)]
    spec = EvaluationSpec(protocol=protocol, train="a", test="b")
    return EvalContext(spec, folder, *sets, folder, plan_devices(1))
