"""Jigsaw++ images a second of one core, from files: our loader, and tiles and all, against Pillow and loops."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from benchmarks.harness import images
from benchmarks.harness.measure import OURS, Comparison, Contender, Setting, interleave
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.formats import CacheOptions
from ssltransfer.config.tasks import JigsawPP
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.stages import cache
from ssltransfer.tasks.pretext.jigsawpp import JigsawPPTask

BATCH = 32
GOAL, CACHED_GOAL = 4.0, 15.0
NAIVE, DECODING = "Pillow, a loop over tiles", "decoding alone"


def run(setting: Setting) -> Iterator[Comparison]:
    """The loader returns uint8 squares and leaves tiles and normalization to the device. In the last case the same core
    computes those too, with jitter, occluders, channel shift and grayscale, which the baseline omits.
    """
    torch.set_num_threads(1)
    n = setting.size(512, BATCH)
    path = images.draw(setting.folder, n)
    index = read_index(path)
    paths = [index.path(sample) for sample in range(n)]
    task = JigsawPPTask(JigsawPP(), CaffeNet(width_mult=0.125), seed=0)

    def cached(form: Literal["raw", "jpeg"]) -> Index:
        cache.run(CacheOptions(format=form), data=path, output=setting.folder / f"{form}.parquet", threads=1)
        return read_index(setting.folder / f"{form}.parquet")

    def ours(found: Index, tiles: bool) -> None:
        for batch in load_batches(found, task.transform, sequential_keys(range(n), BATCH), seed=0):
            if tiles:
                task.puzzles(batch.images, batch.rng(0))

    def naive() -> None:
        for start in range(0, n, BATCH):
            torch.stack([naive_tiles(path) for path in paths[start : start + BATCH]])

    def decoding() -> None:
        for path in paths:
            simplejpeg.decode_jpeg(path.read_bytes())

    what = f"{n} JPEG files of 500x375, {images.kilobytes(index):.0f} KB, one core"
    for case, found, tiles, goal, pace in (
        ("batches as loaded", index, False, GOAL, "decoding/files"),
        ("batches as loaded, raw cache", cached("raw"), False, CACHED_GOAL, "decoding/raw"),
        ("batches as loaded, JPEG cache", cached("jpeg"), False, None, "decoding/jpeg"),
        ("batches, tiles and normalization too", index, True, None, None),
    ):
        contenders: dict[str, Contender] = {OURS: partial(ours, found, tiles), NAIVE: naive, DECODING: decoding}
        samples = interleave(contenders, setting.rounds)
        paces = {pace: (OURS, float(n))} if pace else {}
        yield Comparison(f"{case}; {what}", n, "images", samples, {NAIVE: goal}, (DECODING,), paces)


def naive_tiles(path: Path) -> Tensor:
    """Normalized tiles float (9, 3, 64, 64) of an image by Pillow: short side 256, center 255, one tile per cell."""
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 255) // 2, (image.height - 255) // 2
    image = image.crop((left, top, left + 255, top + 255))
    tiles = []
    for cell in range(9):
        x, y = 85 * (cell % 3) + random.randrange(22), 85 * (cell // 3) + random.randrange(22)
        tile = torch.from_numpy(np.array(image.crop((x, y, x + 64, y + 64)))).permute(2, 0, 1).float().div(255)
        tiles.append((tile - tile.mean()) / tile.std())
    return torch.stack(tiles)
