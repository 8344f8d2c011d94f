"""Images inside tar and zip archives, read in place: byte ranges of the archive files."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from io import FileIO
from pathlib import Path

import numpy as np

from ssltransfer.artifacts.files import ArtifactError

MEMBER_ROW = np.dtype(
    [("archive", "<i4"), ("archive_offset", "<i8"), ("archive_bytes", "<i8"), ("archive_deflated", "?")]
)
"""Position of an image: number of the archive, byte range, and whether the bytes are compressed by DEFLATE."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive.

    Attributes:
        location: for messages: the archive's path followed by the path in the archive.
        archive: the archive file.
        offset: of the first byte.
        size: number of bytes in the archive.
        deflated: whether they are compressed.
    """

    location: Path
    archive: Path
    offset: int
    size: int
    deflated: bool = False

    def __str__(self) -> str:
        return str(self.location)

    def exists(self) -> bool:
        """Whether the archive exists."""
        return self.archive.is_file()

    def read(self, limit: int) -> bytes:
        """The content of the file, but at most limit + 1 bytes of it.

        Raises:
            OSError: the archive cannot be read, or ends early.
            zlib.error: the compressed content is damaged.
        """
        data = read_range(self.archive, self.offset, min(self.size, limit + 1))
        if len(data) < min(self.size, limit + 1):
            raise OSError(f"{self.archive} ends early")
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit + 1) if self.deflated else bytes(data)


@dataclass(frozen=True)
class Members:
    """The positions of the images of a dataset that are inside archives.

    Attributes:
        archives: path and size in bytes of each archive.
        rows: `MEMBER_ROW` of each image.
    """

    archives: list[tuple[Path, int]]
    rows: np.ndarray

    def member(self, position: int, location: Path) -> Member:
        """The file of an image."""
        archive, offset, size, deflated = self.rows[position].tolist()
        return Member(location, self.archives[archive][0], offset, size, deflated)

    def subset(self, positions: np.ndarray | list[int]) -> Members:
        """The images at these positions."""
        return replace(self, rows=self.rows[positions])

    def check(self) -> None:
        """Verify that every archive exists with its size.

        Raises:
            ArtifactError: one is missing or has changed.
        """
        for path, size in self.archives:
            if not path.is_file() or path.stat().st_size != size:
                raise ArtifactError(
                    f"{path}: is missing or has changed since the index was made; restore it or run the index stage "
                    "again."
                )


def archive_of(path: Path) -> Path | None:
    """The archive file that a path is or leads into: /data/birds.tar of /data/birds.tar/train; None outside of one."""
    if path.is_dir():
        return None
    return next((one for one in (path, *path.parents) if one.is_file()), None)


def read_range(path: Path, offset: int, size: int) -> bytearray:
    """Bytes of a file, fewer at its end; safe in any process and thread.

    Raises:
        OSError: it cannot be read.
    """
    # No memory map: a file system error or a truncated file would kill the process with SIGBUS.
    data = bytearray(size)
    file = _opened(path, path.stat().st_ino)  # the name keeps it open while another thread fills the cache
    view, done = memoryview(data), 0
    # One call reads at most 2 GiB.
    while done < size and (got := os.preadv(file.fileno(), [view[done:]], offset + done)):
        done += got
    view.release()
    del data[done:]
    return data


@lru_cache(maxsize=256)
def _opened(path: Path, inode: int) -> FileIO:
    # By inode too: a file that another replaced stays open under its old one.
    # Not in a dataclass, which is pickled for worker processes. Below the usual limit of 1024 open files per process.
    return FileIO(path)
