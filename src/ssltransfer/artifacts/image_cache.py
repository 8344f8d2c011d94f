"""Image cache: decoded images in a few large shard files, and a table with the position of each image.

A shard is the unit of work and of resume. `NNNNN.shard` contains concatenated images; `NNNNN.json`, written after it,
contains their lengths and the digest of the shard. Readers read single images by offset and verify the checksum of
each, which detects truncated, foreign or corrupt data.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssltransfer.artifacts.archives import read_range
from ssltransfer.artifacts.files import ArtifactError, atomic_write, file_digest, read_json, write_json
from ssltransfer.config.formats import CacheOptions
from ssltransfer.digests import hasher

SHARD_BYTES = 256 << 20  # network file systems are fastest with few large files
SMALLEST_SHARD_BYTES = 8 << 20

ROW = np.dtype(
    [
        *(("shard", "<i4"), ("offset", "<i8"), ("bytes", "<i4"), ("checksum", "<u4")),
        *(("cached_width", "<i4"), ("cached_height", "<i4")),
    ]
)
"""Position of an image: shard, byte range, CRC-32, and the size in pixels."""


@dataclass(frozen=True)
class Shard:
    """A shard on disk: size in bytes and digest of its file, and `ROW` of each of its images, in order."""

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
        """Verify that every shard exists with its full length; the content is verified when it is read.

        Raises:
            ArtifactError: one is missing or truncated.
        """
        for number, (size, _) in enumerate(self.shards):
            path = shard_file(self.folder, number)
            if not path.is_file() or path.stat().st_size != size:
                raise _unusable(path, "missing or truncated")

    def read(self, sample: int) -> bytearray:
        """Read the packed bytes of one image; safe in any process and thread.

        Raises:
            ArtifactError: they are damaged or missing.
        """
        row = self.rows[sample]
        path, size = shard_file(self.folder, int(row["shard"])), int(row["bytes"])
        try:
            data = read_range(path, int(row["offset"]), size)
        except OSError as error:
            raise _unusable(path, f"cannot be read ({error.strerror})") from error
        if len(data) != size or zlib.crc32(data) != row["checksum"]:
            raise _unusable(path, "truncated, damaged or of other images")
        return data


def _unusable(path: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"{path}: {why}; run the stage that packs this dataset again (snakemake -R cache, for videos -R motion): it "
        "packs the missing shards."
    )


def shard_file(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"{number:05}.shard"


def table_file(folder: Path, number: int) -> Path:
    """The table of a shard's images; it exists only if the shard is complete."""
    return folder / f"{number:05}.json"


def write_shard(folder: Path, number: int, images: Iterable[tuple[bytes, int, int]]) -> Shard:
    """Write a shard, then the table of its images; `images` yields packed bytes, width and height of each.

    Raises:
        ArtifactError: the disk is full or not writable; the shard is then missing.
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
    """Read and verify a shard of so many images that was written before; None if it must be written."""
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
    """Assign consecutive images to shards by the expected bytes of each image (N,).

    About SHARD_BYTES per shard; fewer in a small set, so that several processes have work.
    """
    ends = np.cumsum(expected)
    target = min(SHARD_BYTES, max(SMALLEST_SHARD_BYTES, float(ends[-1]) / 16)) if len(ends) else 1.0
    # An image belongs to the shard that would contain its first byte.
    shard = ((ends - expected) // target).astype(np.int64)
    starts = np.flatnonzero(np.diff(shard, prepend=-1)).tolist()
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(ends)], strict=True)]
