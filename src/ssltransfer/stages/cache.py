"""Cache: every image decoded and resized once, packed into a few large files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ssltransfer.artifacts.files import ArtifactError, file_digest
from ssltransfer.artifacts.image_cache import ImageCache, Shard, cut, read_shard, table_file, write_shard
from ssltransfer.artifacts.index import Index, read_index, write_index
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.formats import CacheOptions
from ssltransfer.data.image_cache import pack, read_sample
from ssltransfer.data.parallel import parallel_imap

SAMPLED = 32  # images packed beforehand to know what the others will take


def run(spec: CacheOptions, *, data: Path, output: Path, threads: int | None = None) -> None:
    """Pack the images of an index, and write an index of the same images that says where their pixels lie.

    Equal files give equal bytes at any number of processes and after any interruption; only shards that are missing
    or damaged are made.

    Args:
        spec: size and format.
        data: index of the images.
        output: cache/{dataset}.parquet; what was left out of the index is listed beside it.
        threads: processes that decode (default: as many as there are processors).

    Raises:
        ArtifactError: an image is not the one that was indexed, or the disk cannot hold them.
    """
    threads = threads or len(os.sched_getaffinity(0))
    with WorkDir("cache", output, spec.canonical(), {"data": [data]}) as work:
        index = read_index(data)
        if index.cache is not None:
            raise ArtifactError(f"{data}: is a cache already; give the index that it was made from.")
        if index.targets is not None:
            raise ArtifactError(
                f"{data}: its {index.targets.kind} belong to images of full size; leave `cache` of this dataset out."
            )
        torch.set_num_threads(1)  # each process decodes images of its own
        pixels = cached_pixels(index, spec)
        job = _ShardWriter(index, spec, work.folder, cut(pixels * spec.bytes_per_pixel))
        _refuse_too_much(job, pixels)
        shards = list(parallel_imap(job, map(len, job.spans), threads=threads, unit="image", preload=__name__))
        rows = np.concatenate([shard.rows for shard in shards])
        packed = ImageCache(work.folder, spec, [(shard.size, shard.digest) for shard in shards], rows)
        total = sum(shard.size for shard in shards)
        work.write_run_info(device=f"CPU ({threads} processes)", cache_bytes=total)
        write_index(output, replace(index, cache=packed, spec=index.spec | {"cache": json.loads(spec.canonical())}))
    print(f"{len(index)} images in {len(shards)} shards, {total / 1e6:.1f} MB", flush=True)


def cached_pixels(index: Index, spec: CacheOptions) -> np.ndarray:
    """Pixels that each image will have, but for rounding; float64 (N,)."""
    sides = index.sizes.astype(np.float64)
    scale = np.minimum(1.0, spec.short_side / sides.min(axis=1))
    return np.asarray(sides.prod(axis=1) * scale**2)


class _ShardWriter:
    """Shard number -> the shard, made where it must be."""

    def __init__(self, index: Index, spec: CacheOptions, folder: Path, spans: list[range]):
        self.index, self.spec, self.folder, self.spans = index, spec, folder, spans

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, number: int) -> Shard:
        span = self.spans[number]
        return read_shard(self.folder, number, len(span)) or write_shard(self.folder, number, self._images(span))

    def _images(self, span: range) -> Iterator[tuple[bytes, int, int]]:
        for sample in span:
            yield cached_sample(self.index, sample, self.spec)


def cached_sample(index: Index, sample: int, spec: CacheOptions) -> tuple[bytes, int, int]:
    """An image of the index as it is stored: bytes, width and height.

    Raises:
        ArtifactError: it is gone, broken, or not the one that was indexed.
    """
    # With the hint that a transform to this size gives, so that its pixels are equal to the last bit.
    image = read_sample(index, sample, min_short_side=spec.short_side)
    if file_digest(index.path(sample)) != index.digests[sample]:
        raise ArtifactError(f"{index.path(sample)}: has changed since the index was made; run the index stage again.")
    return pack(image, spec)


def _refuse_too_much(job: _ShardWriter, pixels: np.ndarray) -> None:
    """Say what will be written, and refuse it where the disk is too small."""
    missing = [span for number, span in enumerate(job.spans) if not table_file(job.folder, number).is_file()]
    each = _bytes_per_pixel(job, pixels) if missing else 0.0
    needed = each * sum(float(pixels[span.start : span.stop].sum()) for span in missing)
    free = shutil.disk_usage(job.folder).free
    said = f"{needed / 1e6:.1f} MB to write ({each:.2f} bytes a pixel), {free / 1e6:.1f} MB free"
    print(f"{len(job.index)} images, {len(missing)} of {len(job)} shards to make: {said}", flush=True)
    if needed > free:
        raise ArtifactError(
            f"{job.folder}: the disk cannot hold the images: {said}; free some space, or take a smaller `short` or "
            "`format: jpeg`."
        )


def _bytes_per_pixel(job: _ShardWriter, pixels: np.ndarray) -> float:
    """Exact for raw pixels; for JPEG from a few images spread over the set."""
    if job.spec.format == "raw":
        return job.spec.bytes_per_pixel
    n = len(job.index)
    sample = np.linspace(0, n - 1, min(n, SAMPLED)).astype(int)
    made = sum(len(cached_sample(job.index, int(place), job.spec)[0]) for place in sample)
    return made / float(pixels[sample].sum())
