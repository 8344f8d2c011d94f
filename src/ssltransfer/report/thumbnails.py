"""Thumbnails in strips, and filters of a first convolution."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
from torch import Tensor

from ssltransfer.artifacts.archives import Member
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.data.drawing import data_uri
from ssltransfer.data.image_cache import read_sample
from ssltransfer.data.image_io import CorruptImageError, read
from ssltransfer.data.rng import seed_of
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.models.state_dicts import read_tensors

SIDE = 64
GRAY = 128


def thumbnail_source(index: Index, sample: int) -> Path | Member | Tensor:
    """The image file, or its cached pixels where there is no file (video frames)."""
    source = index.source(sample)
    if index.cache is None or source.exists():
        return source
    try:
        return read_sample(index, sample)
    except ArtifactError:
        return source


def source_of(index: Index, path: str) -> Path | Member | Tensor:
    """`thumbnail_source` of the image with this path below the root."""
    return index.root / path if index.members is None else thumbnail_source(index, index.paths.index(path))


def thumbnail(source: Path | Member | Tensor, side: int = SIDE) -> np.ndarray:
    """uint8 (side, side, 3); gray if the image is missing or corrupt."""
    try:
        image = source if isinstance(source, Tensor) else read(source, min_short_side=side)
        square = ResizeCenterCrop(side, side).apply(image, Random(0))
    except (CorruptImageError, OSError):
        return np.full((side, side, 3), GRAY, np.uint8)
    return square.permute(1, 2, 0).contiguous().numpy()


def strip(paths: Sequence[Path | Member | Tensor], side: int = SIDE, *, lead: int = 0, gap: int = 2) -> str:
    """A JPEG data URI of images side by side; `lead`: extra pixels after the first."""
    out = np.full((side, len(paths) * (side + gap) - gap + lead, 3), 255, np.uint8)
    for i, path in enumerate(paths):
        left = i * (side + gap) + (lead if i else 0)
        out[:, left : left + side] = thumbnail(path, side)
    return data_uri(out, "JPEG")


def tiles(index: Index, samples: Sequence[int], side: int = SIDE, threads: int | None = None) -> np.ndarray:
    """Thumbnails of samples, uint8 (N, side, side, 3), decoded in threads."""
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda sample: thumbnail(thumbnail_source(index, sample), side), samples))
    return np.stack(found) if found else np.empty((0, side, side, 3), np.uint8)


def sheets(groups: Sequence[np.ndarray], columns: int, max_bytes: int, *, gap: int = 2) -> list[str]:
    """A JPEG data URI for each group of tiles (n, side, side, 3), row by row, `columns` wide at most.

    The quality decreases until all of them together have at most `max_bytes`, down to a quality of 20.
    """
    drawn = [_grid(group, columns, gap) for group in groups]
    uris: list[str] = []
    for quality in (80, 60, 40, 20):
        uris = [data_uri(pixels, "JPEG", quality) for pixels in drawn]
        if sum(map(len, uris)) <= max_bytes:
            break
    return uris


def _grid(group: np.ndarray, columns: int, gap: int) -> np.ndarray:
    n, side = group.shape[:2]
    columns = min(n, columns)
    out = np.full((-(-n // columns) * (side + gap) - gap, columns * (side + gap) - gap, 3), 255, np.uint8)
    for i, tile in enumerate(group):
        top, left = i // columns * (side + gap), i % columns * (side + gap)
        out[top : top + side, left : left + side] = tile
    return out


def sample_images(index: Index, num_images: int) -> list[int]:
    """Sample ids drawn by a fixed seed, balanced over the classes if there are any."""
    order = sorted(range(len(index)), key=lambda i: seed_of("report", index.paths[i]))
    counts: dict[int, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for sample in order:
        label = int(index.labels[sample])
        counts[label] = counts.get(label, 0) + 1
        ranked.append((counts[label], len(ranked), sample))
    return [sample for _, _, sample in sorted(ranked)[:num_images]]


def filters(weights: Path) -> str | None:
    """Kernels of the first convolution as a data URI of a grid; None if the file has no such layer.

    Each kernel is scaled to its own range. Kernels with three channels are shown in color, others as the channel mean.
    """
    try:
        tensors = read_tensors(weights)
    except ArtifactError:
        return None
    usual = {"conv1.weight", "features.0.weight", "conv1_1.weight"}
    found = [name for name, tensor in tensors.items() if tensor.ndim == 4 and (name in usual or "conv1" in name)]
    if not found:
        return None
    kernels = tensors[min(found, key=lambda name: (name not in usual, name))].float().numpy()
    kernels = kernels if kernels.shape[1] == 3 else kernels.mean(1, keepdims=True).repeat(3, 1)
    low, high = kernels.min((1, 2, 3), keepdims=True), kernels.max((1, 2, 3), keepdims=True)
    shown = (255 * (kernels - low) / np.maximum(high - low, 1e-12)).round().astype(np.uint8).transpose(0, 2, 3, 1)
    n, side = len(shown), shown.shape[1]
    zoom = max(1, 22 // side)
    cell = side * zoom + 2
    columns = min(n, 12 if n > 32 else 8)
    out = np.full((-(-n // columns) * cell - 2, columns * cell - 2, 3), 255, np.uint8)
    for i, kernel in enumerate(shown):
        top, left = i // columns * cell, i % columns * cell
        out[top : top + side * zoom, left : left + side * zoom] = kernel.repeat(zoom, 0).repeat(zoom, 1)
    return data_uri(out, "PNG")
