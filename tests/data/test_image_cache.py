"""Packed images against the files that they were made of."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config.formats import CacheOptions, Folder
from ssltransfer.data.image_cache import read_sample
from ssltransfer.data.image_io import read
from ssltransfer.data.loader import load_batches, sequential_keys, training_keys
from ssltransfer.data.transforms import RandomResizedCrop, ResizeCenterCrop, Warp, resize_short
from ssltransfer.stages import cache
from ssltransfer.stages import index as index_stage

Saved = dict[str, dict[str, Any]]


def smooth(height: int, width: int, seed: int = 0) -> Image.Image:
    """An image of soft shapes, as photographs are."""
    noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def odd_images(folder: Path) -> None:
    """Gray, transparent, palette, 16 bits, turned, CMYK, tiny, large and very long ones; names of all kinds."""
    turned = Image.Exif()
    turned[0x0112] = 6
    images: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "été — 1; $x `y`.jpg": (smooth(300, 400), {"quality": 92}),
        "a b/gray.jpg": (smooth(90, 70, 1).convert("L"), {}),
        "a b/turned.jpg": (smooth(80, 120, 2), {"exif": turned}),
        "a b/cmyk.jpg": (smooth(70, 80, 3).convert("CMYK"), {}),
        "日本/glass.png": (smooth(64, 48, 4).convert("RGBA"), {}),
        "日本/palette.gif": (smooth(60, 64, 5).convert("P"), {}),
        "日本/sixteen.png": (Image.fromarray(np.arange(4000, dtype=np.uint16).reshape(50, 80) * 16), {}),
        "tiny.png": (smooth(9, 11, 6), {}),
        "strip.png": (smooth(8, 66_000, 7), {}),
        "large.jpg": (smooth(700, 900, 8), {"quality": 90}),
    }
    for name, (image, options) in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, **options)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index of the odd images."""
    folder = tmp_path_factory.mktemp("odd")
    odd_images(folder / "images")
    index_stage.run(Folder(root=str(folder / "images")), output=folder / "odd.parquet", threads=1)
    assert len(read_index(folder / "odd.parquet")) == 10
    return folder / "odd.parquet"


def cached(data: Path, folder: Path, **options: Any) -> Index:
    cache.run(CacheOptions(**options), data=data, output=folder / "cache" / "d.parquet", threads=1)
    return read_index(folder / "cache" / "d.parquet")


@pytest.mark.parametrize("short", [32, 256])
def test_pack_raw_equals_resized_pixels(odd: Path, tmp_path: Path, short: int):
    """JPEGs are decoded at the reduced size that a view of this size allows. Smaller images are not enlarged."""
    files, packed = read_index(odd), cached(odd, tmp_path, format="raw", short_side=short)
    for sample, path in enumerate(files.paths):
        image = read(files.path(sample), min_short_side=short)
        expected = image if min(image.shape[1:]) <= short else resize_short(image, short)
        assert torch.equal(read_sample(packed, sample), expected), path
    view = ResizeCenterCrop(short, short - 4)
    for one, other in zip(*(batches(index, view) for index in (files, packed)), strict=True):
        assert torch.equal(one, other)


def batches(index: Index, view: Any) -> list[torch.Tensor]:
    keys = sequential_keys([sample for sample, path in enumerate(index.paths) if "strip" not in path], 3)
    return [batch.images for batch in load_batches(index, view, keys, seed=0)]


def test_pack_jpeg_is_close(odd: Path, tmp_path: Path):
    packed, raw = cached(odd, tmp_path / "j", short_side=64), cached(odd, tmp_path / "r", short_side=64, format="raw")
    assert packed.cache is not None and raw.cache is not None
    for sample, path in enumerate(packed.paths):
        one, other = read_sample(packed, sample), read_sample(raw, sample)
        difference = (one.int() - other.int()).abs().float().mean()
        assert one.shape == other.shape and one.dtype == torch.uint8
        assert difference == 0 if "strip" in path else 0 < difference < 4, path
    # A strip longer than a JPEG can be lies raw among them.
    strip = packed.paths.index("strip.png")
    assert packed.cache.rows[strip]["bytes"] == 3 * 8 * 66_000


def test_pack_jpeg_quality_trades_error_for_size(objects_path: Path, tmp_path: Path):
    raw = cached(objects_path, tmp_path / "raw", short_side=48, format="raw")
    found = []
    for quality in (50, 75, 95, 100):
        index = cached(objects_path, tmp_path / str(quality), short_side=48, quality=quality)
        assert index.cache is not None
        far = [(read_sample(index, i).int() - read_sample(raw, i).int()).abs().float().mean() for i in range(48)]
        found.append((float(np.mean(far)), -index.cache.shards[0][0]))
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("view", [ResizeCenterCrop(40, 36), Warp(48)])
def test_cached_views_differ_only_by_resampling(odd: Path, tmp_path: Path, view: Any):
    """On soft images two steps of resampling are nearly one: a few gray levels."""
    files, packed = read_index(odd), cached(odd, tmp_path, format="raw", short_side=64)
    (large,) = (sample for sample, path in enumerate(files.paths) if path == "large.jpg")
    one, other = (
        view.apply(read_sample(index, large, min_short_side=view.min_short_side), Random(1)).float()
        for index in (files, packed)
    )
    assert (one - other).abs().mean() < 3


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_cached_batches_are_independent_of_workers(objects_path: Path, tmp_path: Path, form: str):
    index = cached(objects_path, tmp_path, format=form, short_side=48)
    keys = list(training_keys(len(index), 8, 0, 6, seed=1))
    runs = [
        [batch.images for batch in load_batches(index, RandomResizedCrop(16), iter(keys), seed=1, workers=workers)]
        for workers in (0, 1, 4)
    ]
    for one, other, third in zip(*runs, strict=True):
        assert torch.equal(one, other) and torch.equal(one, third)


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_cache_is_readable_in_spawned_and_forked_processes(objects_path: Path, tmp_path: Path, method: str):
    index = cached(objects_path, tmp_path, short_side=48)
    assert index.cache is not None
    here = [index.cache.read(sample) for sample in range(8)]  # its file is open now
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(index.cache.read, range(8)) == here
