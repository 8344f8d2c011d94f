"""What the tests of the evaluations begin with: models with random weights, indexes of embedded images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.backbones import BackboneOptions, CaffeNet
from ssltransfer.config.formats import Synthetic
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import write_model
from ssltransfer.stages.index import run as make_index

BACKBONE = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2)


def make_model(folder: Path, options: BackboneOptions = BACKBONE, *, include_top: bool = True, seed: int = 0) -> Path:
    """A random network, written as any other model; returns its manifest."""
    with WorkDir("pretext", folder / "manifest.json", "{}", {}) as work:
        work.finish(write_model(folder, build_backbone(options, include_top=include_top, seed=seed), "imagenet", {}))
    return work.output


def make_sets(root: Path, kind: str, splits: dict[str, int], size: int, **options: Any) -> tuple[Path, Path]:
    """Indexes of so many images of two splits of the embedded world."""
    for split, n in splits.items():
        spec = Synthetic(subset=kind, split=split, num_images=n, size=size, root=str(root / "world"), **options)  # type: ignore[arg-type]
        make_index(spec, output=root / f"{split}.parquet", threads=1)
    train, test = (root / f"{split}.parquet" for split in splits)
    return train, test
