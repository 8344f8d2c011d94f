"""Listing of tar and zip archives, whose files are read in place."""

from __future__ import annotations

import posixpath
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from ssltransfer.artifacts.archives import MEMBER_ROW, Member, Members, archive_of
from ssltransfer.errors import UserError

MACOS_METADATA = "__MACOSX"
LINK = "a link inside an archive; pack the file itself (tar --dereference)"
_REPACK = {b"\x1f\x8b": "gzip -d", b"BZh": "bzip2 -d", b"\xfd7zXZ\0": "xz -d", b"\x28\xb5\x2f\xfd": "zstd -d"}
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class ArchiveError(UserError):
    """An archive that cannot be read in place; the message is one sentence."""


@dataclass(frozen=True)
class Listing:
    """The files of an archive.

    Attributes:
        archive: the archive file.
        files: path -> (offset, size, deflated), in the archive's order; the last one of equal names counts.
        folders: all folders.
        links: paths of links, which are not followed.
    """

    archive: Path
    files: dict[str, tuple[int, int, bool]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)

    def member(self, path: str) -> Member:
        """A file of the archive."""
        return Member(self.archive / path, self.archive, *self.files[path])

    def read(self, path: str, limit: int = 1 << 24) -> bytes:
        """The content of a small file, such as a label."""
        return self.member(path).read(limit)


def is_archive(path: Path) -> bool:
    """Whether a path is a tar or zip archive, or a folder in one, by the archive's suffix."""
    archive = archive_of(path)
    return archive is not None and archive.suffix.lower() in (".tar", ".zip")


def members_below(root: Path, paths: Sequence[str]) -> Members | None:
    """The positions of files below a root that leads into an archive; None for a folder.

    Raises:
        ArchiveError: the archive cannot be read, or has no such file.
    """
    archive = archive_of(root)
    if archive is None:
        return None
    listing = list_archive(archive)
    inside = [(root / path).relative_to(archive).as_posix() for path in paths]
    if missing := next((path for path in inside if path not in listing.files), None):
        raise ArchiveError(f"{archive}: has no file {missing}; restore the archive that was embedded.")
    return members_of([(listing, path) for path in inside])


def members_of(places: list[tuple[Listing, str]]) -> Members:
    """The positions of the files at these paths."""
    numbers: dict[Path, int] = {}
    rows = np.empty(len(places), MEMBER_ROW)
    for row, (listing, path) in enumerate(places):
        rows[row] = (numbers.setdefault(listing.archive, len(numbers)), *listing.files[path])
    return Members([(archive, archive.stat().st_size) for archive in numbers], rows)


def list_archive(archive: Path) -> Listing:
    """The files of a tar or zip archive.

    Raises:
        ArchiveError: it is compressed as a whole, encrypted, damaged, or not an archive.
    """
    status = archive.stat()
    return _listed(archive, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _listed(archive: Path, *state: int) -> Listing:
    with archive.open("rb") as file:
        head = file.read(6)
    for magic, command in _REPACK.items():
        if head.startswith(magic):
            raise ArchiveError(
                f"{archive}: is compressed as a whole, so single images cannot be read; use the uncompressed tar that "
                f"`{command}` makes of it, or unpack it."
            )
    listing = Listing(archive)
    try:
        # By the first bytes: `zipfile.is_zipfile` also takes a tar file that ends with a zip file.
        entries = _zipped(archive) if head.startswith((b"PK\3\4", b"PK\5\6")) else _taped(archive)
        for name, place in entries:
            path = posixpath.normpath(name).lstrip("/")
            parents = path if place is None else posixpath.dirname(path)
            while parents not in ("", ".") and parents not in listing.folders:
                listing.folders.add(parents)
                parents = posixpath.dirname(parents)
            if isinstance(place, str):
                # A hard link in a tar file repeats an earlier file; a symbolic link has an empty target here.
                target = posixpath.normpath(place).lstrip("/")
                place = listing.files.get(target)
                if place is None:
                    listing.links.append(path)
            if place is not None:
                listing.files[path] = place
    # `ZipFile` raises NotImplementedError for a newer version of the format and UnicodeDecodeError for a damaged name.
    except (tarfile.TarError, zipfile.BadZipFile, struct.error, NotImplementedError, UnicodeDecodeError) as error:
        raise ArchiveError(
            f"{archive}: cannot be read as a tar or zip archive ({error}); check its path, or download it again."
        ) from None
    return listing


_Place = tuple[int, int, bool]


def _taped(archive: Path) -> Iterator[tuple[str, _Place | str | None]]:
    """Name of each entry of a tar file, with its place, the target of a link, or None for a folder."""
    with tarfile.open(archive, "r:") as tar:
        for entry in tar:
            tar.members.clear()  # type: ignore[attr-defined]  # about 1 KB each; not in the type stubs
            if entry.isdir():
                yield entry.name, None
            elif entry.islnk() or entry.issym():
                yield entry.name, entry.linkname if entry.islnk() else ""
            elif entry.isreg() and not entry.issparse():
                yield entry.name, (entry.offset_data, entry.size, False)
        # tarfile takes a damaged header for the end.
        with archive.open("rb") as file:
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError(f"damaged header at byte {tar.offset}")


def _zipped(archive: Path) -> Iterator[tuple[str, _Place | str | None]]:
    """The same of a zip file."""
    with zipfile.ZipFile(archive) as content, archive.open("rb") as file:
        for entry in content.infolist():
            name = entry.filename
            if not entry.flag_bits & 0x800:  # not declared as UTF-8, as by macOS, which writes UTF-8 nevertheless
                with suppress(UnicodeError):
                    name = name.encode("cp437").decode("utf-8")
            if entry.is_dir():
                yield name, None
                continue
            if stat.S_ISLNK(entry.external_attr >> 16):
                yield name, ""
                continue
            if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                how = "encrypted" if entry.flag_bits & 1 else "compressed in a way that cannot be read in place"
                raise ArchiveError(f"{archive}: {name} is {how}; repack the folder with `zip -0 -r`.")
            file.seek(entry.header_offset)
            magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if magic != b"PK\3\4":
                raise zipfile.BadZipFile(f"{name} has no header")
            start = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
            yield name, (start, entry.compress_size, entry.compress_type == zipfile.ZIP_DEFLATED)
