"""Images as large in pixels and bytes as ImageNet's usual ones: drawn rooms under noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import toyworld
from ssltransfer.artifacts.index import Index, read_index, write_index
from ssltransfer.config.formats import Folder
from ssltransfer.stages import index

DEVIATION, QUALITY = 24, 90  # of the noise, of 255; makes 500 x 375 pixels some 110 KB, ImageNet's mean


def draw(folder: Path, n: int) -> Path:
    """Write n JPEG files of 500 x 375 pixels and their index; returns the index's file.

    At most 32 rooms are drawn; each image has noise of its own.
    """
    toyworld.generate("rgbd", folder / "rooms", split="train", num_images=min(n, 32), size=375)
    rooms = sorted((folder / "rooms/train/rgb").iterdir())
    (folder / "images").mkdir()
    for number in range(n):
        room = np.asarray(Image.open(rooms[number % len(rooms)]).convert("RGB"), np.float32)
        noise = np.random.default_rng(number).normal(0, DEVIATION, room.shape)
        image = Image.fromarray((room + noise).clip(0, 255).astype(np.uint8))
        image.save(folder / "images" / f"{number:06}.jpg", quality=QUALITY)
    index.run(Folder(root=str(folder / "images")), output=folder / "index.parquet", threads=1)
    return folder / "index.parquet"


def repeated(path: Path, n: int, output: Path) -> Path:
    """An index of n images, those of another one again and again."""
    once = read_index(path)
    places = [number % len(once) for number in range(n)]
    again = Index(
        once.root,
        [once.paths[place] for place in places],
        once.labels[places],
        once.classes,
        once.sizes[places],
        [once.digests[place] for place in places],
    )
    write_index(output, again)
    return output


def kilobytes(found: Index) -> float:
    """Mean size of the files."""
    return float(np.mean([found.path(sample).stat().st_size for sample in range(len(found))])) / 1000
