"""Atomic writes and digests: a file with its final name is complete and synced."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssltransfer.digests import hasher
from ssltransfer.errors import UserError

UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""Errors of a call that the file system does not have."""


class ArtifactError(UserError):
    """An artifact is missing, belongs to other inputs, or cannot be written."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file next to `path`; rename it to `path` if the block succeeds, delete it otherwise.

    The content is synced before the rename and the folder after it, so that a power cut leaves the old file or
    the new one.

    Raises:
        ArtifactError: the disk is full or read-only.
    """
    with friendly_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".partial")
    os.close(handle)
    beside = Path(name)
    try:
        with friendly_os_errors(path):
            yield beside
            sync(beside)
            umask = os.umask(0)
            os.umask(umask)
            beside.chmod(0o666 & ~umask)
            beside.replace(path)
            sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def friendly_os_errors(path: Path) -> Iterator[None]:
    """Raise an `ArtifactError` with one sentence if the disk is full or `path` is not writable."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = "the disk is full" if error.errno == errno.ENOSPC else "the disk quota is used up"
            raise ArtifactError(
                f"{path}: {free}; free some space and run the same command again; it resumes."
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise ArtifactError(
                f"{path}: cannot be written ({error.strerror}); choose another results folder."
            ) from error
        raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder next to `folder`; rename it to `folder` if the block succeeds. A leftover is removed first.

    Raises:
        ArtifactError: the disk is full or read-only.
    """
    beside = folder.with_name(f".{folder.name}.partial")
    with friendly_os_errors(folder):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        # One call instead of an fsync for each of many small files.
        os.sync()
        beside.replace(folder)


def sync(path: Path) -> None:
    """Sync the content of a file, or the entries of a folder, to the disk.

    Some file systems, such as CIFS, cannot sync a folder. They write its entries in their own time.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, *UNSUPPORTED) or not path.is_dir():
            raise
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, all or nothing."""
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, all or nothing: equal content gives equal bytes."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ArtifactError: it is missing or not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; run the stage that writes it.") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ArtifactError(f"{path}: not valid JSON; remove it and rerun the stage that writes it.") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); name a JSON file.") from None


def file_digest(path: Path) -> str:
    """blake2b-128 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, hasher).hexdigest()


def text_digest(*parts: str) -> str:
    """blake2b-128 of texts, hexadecimal; the boundaries between them count."""
    state = hasher()
    for part in parts:
        encoded = part.encode()
        state.update(len(encoded).to_bytes(8, "little"))
        state.update(encoded)
    return state.hexdigest()
