"""Image cache: decoded images in a few large shard files, and a table with the position of each image.

A shard is the unit of work and of resume: `NNNNN.shard` holds images back to back, `NNNNN.json` beside it, written
after it, their lengths and the digest of the whole. Readers take single images by offset, each with a checksum of
its own, so that nothing torn, foreign or rotten passes for pixels.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path

import numpy as np

from ssltransfer.artifacts.files import ArtifactError, atomic_write, file_digest, read_json, write_json
from ssltransfer.config.formats import CacheOptions
from ssltransfer.digests import hasher

SHARD_BYTES = 256 << 20  # file systems over a network like few large files
SMALLEST_SHARD_BYTES = 8 << 20

ROW = np.dtype(
    [
        *(("shard", "<i4"), ("offset", "<i8"), ("bytes", "<i4"), ("checksum", "<u4")),
        *(("cached_width", "<i4"), ("cached_height", "<i4")),
    ]
)
"""Position of an image: shard, bytes in it, their CRC-32, and the size in pixels."""


@dataclass(frozen=True)
class Shard:
    """A shard on disk.

    Attributes:
        size: bytes of the file.
        digest: of its content.
        rows: `ROW` of each of its images, in order.
    """

    size: int
    digest: str
    rows: np.ndarray


@dataclass(frozen=True)
class ImageCache:
    """The cached images of an index.

    Attributes:
        folder: of the shards.
        options: how the images were packed.
        shards: size and digest of each shard.
        rows: `ROW` of each image of the index.
    """

    folder: Path
    options: CacheOptions
    shards: list[tuple[int, str]]
    rows: np.ndarray

    def check(self) -> None:
        """Verify that every shard exists in its full length; the content is verified when it is read.

        Raises:
            ArtifactError: one is missing or torn.
        """
        for number, (size, _) in enumerate(self.shards):
            path = shard_file(self.folder, number)
            if not path.is_file() or path.stat().st_size != size:
                raise _unusable(path, "missing or torn")

    def read(self, sample: int) -> bytearray:
        """The packed bytes of one image; safe in any process and thread.

        Raises:
            ArtifactError: they are damaged or missing.
        """
        row = self.rows[sample]
        path, data = shard_file(self.folder, int(row["shard"])), bytearray(int(row["bytes"]))
        try:
            # No memory map: there a file system's failure or a file cut short would kill the process without a word.
            read = os.preadv(_opened(path).fileno(), [data], int(row["offset"]))
        except OSError as error:
            raise _unusable(path, f"cannot be read ({error.strerror})") from error
        if read != len(data) or zlib.crc32(data) != row["checksum"]:
            raise _unusable(path, "torn, damaged or of other images")
        return data


def _unusable(path: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"{path}: {why}; run the stage that packs this dataset again (snakemake -R cache, for videos -R motion): it "
        "makes what is missing."
    )


@lru_cache(maxsize=256)
def _opened(path: Path) -> FileIO:
    # Not in `Packed`: that travels to worker processes. Fewer than the 1024 files that a process may usually open.
    return FileIO(path)


def shard_file(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"{number:05}.shard"


def table_file(folder: Path, number: int) -> Path:
    """The table of a shard's images: where it is, the shard was written."""
    return folder / f"{number:05}.json"


def write_shard(folder: Path, number: int, images: Iterable[tuple[bytes, int, int]]) -> Shard:
    """Write a shard, and then the table of its images.

    Args:
        folder: of the shards.
        number: of this one.
        images: packed bytes, width and height of each.

    Raises:
        ArtifactError: the disk is full or must not be written; the shard is missing then.
    """
    state, offset, rows = hasher(), 0, []
    with atomic_write(shard_file(folder, number)) as beside, beside.open("wb") as file:
        for data, width, height in images:
            file.write(data)
            state.update(data)
            rows.append((number, offset, len(data), zlib.crc32(data), width, height))
            offset += len(data)
    table = {"size": offset, "digest": state.hexdigest(), "rows": [list(row) for row in rows]}
    write_json(table_file(folder, number), table)
    return Shard(offset, state.hexdigest(), np.array(rows, ROW))


def read_shard(folder: Path, number: int, images: int) -> Shard | None:
    """A shard that was written before, its content checked; None where it must be made (again).

    Args:
        folder: of the shards.
        number: of this one.
        images: how many it should hold.
    """
    path = shard_file(folder, number)
    if not path.is_file():
        return None
    try:
        table = read_json(table_file(folder, number))
        shard = Shard(table["size"], table["digest"], np.array([tuple(row) for row in table["rows"]], ROW))
    except (ArtifactError, KeyError, TypeError, ValueError):
        return None
    whole = len(shard.rows) == images and path.stat().st_size == shard.size and file_digest(path) == shard.digest
    return shard if whole else None


def cut(expected: np.ndarray) -> list[range]:
    """Which images go into which shard: neighbors, from the expected bytes of each (N,) alone.

    About SHARD_BYTES a shard; fewer in a small set, so that several processes have something to do.
    """
    ends = np.cumsum(expected)
    target = min(SHARD_BYTES, max(SMALLEST_SHARD_BYTES, float(ends[-1]) / 16)) if len(ends) else 1.0
    # An image belongs to the shard that would contain its first byte.
    shard = ((ends - expected) // target).astype(np.int64)
    starts = np.flatnonzero(np.diff(shard, prepend=-1)).tolist()
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(ends)], strict=True)]
