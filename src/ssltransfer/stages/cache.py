"""Cache stage: decode and resize each image once, and pack the images into a few large files."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.image_cache import ImageCache, Shard, cut, read_shard, table_file, write_shard
from ssltransfer.artifacts.index import Index, read_index, write_index
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.formats import CacheOptions
from ssltransfer.data.image_cache import pack, read_sample
from ssltransfer.data.image_io import content_digest
from ssltransfer.data.parallel import Job, parallel_imap
from ssltransfer.logs import logger
from ssltransfer.processes import available_cores

SAMPLED = 32  # images packed first to estimate the size of the cache


def run(spec: CacheOptions, *, data: Path, output: Path, threads: int | None = None) -> None:
    """Pack the images of an index into shards, and write an index of the same images that refers to the shards.

    The bytes depend neither on the number of processes nor on interruptions. Only missing or damaged shards are
    computed. {dataset}.skipped.tsv beside `output` lists the files that the index skips. `threads` is the number of
    processes.

    Raises:
        ArtifactError: an image has changed since it was indexed, or the disk is too small.
    """
    threads = threads or available_cores()
    with WorkDir("cache", output, spec.canonical(), {"data": data}) as work:
        index = read_index(data)
        if index.cache is not None:
            raise ArtifactError(f"{data}: is already a cache; give the index that it was made from.")
        if index.targets is not None:
            raise ArtifactError(
                f"{data}: its {index.targets.kind} belong to images of full size; remove `cache` from this dataset."
            )
        torch.set_num_threads(1)  # each process decodes images of its own
        pixels = cached_pixels(index, spec)
        job = _ShardWriter(index, spec, work.folder, cut(pixels * spec.bytes_per_pixel))
        _refuse_too_much(job, pixels)
        shards = list(parallel_imap(job, threads=threads, unit="image"))
        rows = np.concatenate([shard.rows for shard in shards])
        packed = ImageCache(work.folder, spec, [(shard.size, shard.digest) for shard in shards], rows)
        total = sum(shard.size for shard in shards)
        work.write_run_info(device=f"CPU ({threads} processes)", cache_bytes=total)
        write_index(output, replace(index, cache=packed, spec=index.spec | {"cache": json.loads(spec.canonical())}))
    logger.info(f"{len(index)} images in {len(shards)} shards, {total / 1e6:.1f} MB")


def cached_pixels(index: Index, spec: CacheOptions) -> np.ndarray:
    """Pixels of each resized image before rounding, float64 (N,)."""
    sides = index.sizes.astype(np.float64)
    scale = np.minimum(1.0, spec.short_side / sides.min(axis=1))
    return np.asarray(sides.prod(axis=1) * scale**2)


class _ShardWriter(Job[Shard]):
    """Shard number -> the shard, written if it is missing or damaged."""

    def __init__(self, index: Index, spec: CacheOptions, folder: Path, spans: list[range]):
        self.index, self.spec, self.folder, self.spans = index, spec, folder, spans

    def __getitem__(self, number: int) -> Shard:
        span = self.spans[number]
        return read_shard(self.folder, number, len(span)) or write_shard(self.folder, number, self._images(span))

    def _images(self, span: range) -> Iterator[tuple[bytes, int, int]]:
        for sample in span:
            yield cached_sample(self.index, sample, self.spec)


def cached_sample(index: Index, sample: int, spec: CacheOptions) -> tuple[bytes, int, int]:
    """An image of the index as it is stored: bytes, width and height.

    Raises:
        ArtifactError: it is missing or corrupt, or has changed since it was indexed.
    """
    # The same decoder hint as a transform to this size, so that the pixels are bit-identical.
    image = read_sample(index, sample, min_short_side=spec.short_side)
    if content_digest(index.source(sample)) != index.digests[sample]:
        raise ArtifactError(f"{index.path(sample)}: has changed since the index was made; run the index stage again.")
    return pack(image, spec)


def _refuse_too_much(job: _ShardWriter, pixels: np.ndarray) -> None:
    """Print how much will be written, and raise an error if the disk is too small."""
    missing = [span for number, span in enumerate(job.spans) if not table_file(job.folder, number).is_file()]
    each = _bytes_per_pixel(job, pixels) if missing else 0.0
    needed = each * sum(float(pixels[span.start : span.stop].sum()) for span in missing)
    free = shutil.disk_usage(job.folder).free
    said = f"{needed / 1e6:.1f} MB to write ({each:.2f} bytes per pixel), {free / 1e6:.1f} MB free"
    logger.info(f"{len(job.index)} images, {len(missing)} of {len(job)} shards to make: {said}")
    if needed > free:
        raise ArtifactError(
            f"{job.folder}: the disk cannot hold the images: {said}; free some space, or use a smaller `short_side` or "
            "`format: jpeg`."
        )


def _bytes_per_pixel(job: _ShardWriter, pixels: np.ndarray) -> float:
    """Exact for raw pixels; for JPEG an estimate from a few evenly spaced images."""
    if job.spec.format == "raw":
        return job.spec.bytes_per_pixel
    n = len(job.index)
    sample = np.linspace(0, n - 1, min(n, SAMPLED)).astype(int)
    made = sum(len(cached_sample(job.index, int(place), job.spec)[0]) for place in sample)
    return made / float(pixels[sample].sum())
