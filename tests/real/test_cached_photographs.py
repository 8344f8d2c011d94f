"""What a cache costs in gray levels on real photographs; `pytest -s` prints the table of docs/datasets.md."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config.formats import CacheOptions, Folder
from ssltransfer.data.image_cache import read_sample
from ssltransfer.data.transforms import ResizeCenterCrop, Warp
from ssltransfer.stages import cache
from ssltransfer.stages import index as index_stage

VIEWS = {
    "256": ResizeCenterCrop(256, 256),
    "146": ResizeCenterCrop(146, 146),
    "72": ResizeCenterCrop(72, 72),
    "warp": Warp(256),
}


@pytest.mark.real
@pytest.mark.slow
def test_how_far_cached_images_are_from_their_files(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    for place, file in enumerate(sorted(real_data.glob("voc_*/**/JPEGImages/*.jpg"))):
        (tmp_path / "photographs" / f"{place}.jpg").symlink_to(file)
    index_stage.run(Folder(root=str(tmp_path / "photographs")), output=tmp_path / "index.parquet", threads=1)
    files = read_index(tmp_path / "index.parquet")
    assert len(files) >= 50
    far: dict[str, dict[str, float]] = {}
    for options in (CacheOptions(format="raw"), CacheOptions(quality=95), CacheOptions(quality=75)):
        name = options.canonical()
        cache.run(options, data=tmp_path / "index.parquet", output=tmp_path / "c.parquet", threads=1)
        packed = read_index(tmp_path / "c.parquet")
        far[name] = {view: _mean(files, packed, VIEWS[view]) for view in VIEWS}
        print(name, {view: round(value, 2) for view, value in far[name].items()})
    raw, fine, coarse = far.values()
    assert raw["256"] == 0 < fine["256"] < 2.5 and fine["256"] < coarse["256"]
    assert all(raw[view] <= fine[view] <= coarse[view] < 6 for view in VIEWS)


def _mean(files: Index, packed: Index, view: Any) -> float:
    """Mean absolute difference of the views, in gray levels."""
    total = 0.0
    for sample in range(len(files)):
        one, other = (
            view.apply(read_sample(index, sample, min_short_side=view.min_short_side), Random(0))
            for index in (files, packed)
        )
        total += float((one.int() - other.int()).abs().float().mean())
    return total / len(files)
