"""All or nothing: after a kill or on a full disk the old file is whole, or there is none."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssltransfer.artifacts.files import (
    ArtifactError,
    atomic_write,
    file_digest,
    read_json,
    text_digest,
    write_json,
    write_text,
)

WRITER = """
import os, sys
from pathlib import Path
from ssltransfer.artifacts import files
where = sys.argv[2]
if where == "before the sync":
    files.sync = lambda path: os.kill(os.getpid(), 9)
if where == "before the rename":
    Path.replace = lambda *_: os.kill(os.getpid(), 9)
with files.atomic_write(Path(sys.argv[1])) as beside:
    beside.write_text("new " * 1000)
    if where == "while writing":
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("where", ["while writing", "before the sync", "before the rename"])
@pytest.mark.parametrize("old", ["old", None])
def test_atomic_keeps_old_file_when_killed(tmp_path: Path, where: str, old: str | None) -> None:
    path = tmp_path / "result.json"
    if old:
        path.write_text(old)
    done = subprocess.run([sys.executable, "-c", WRITER, str(path), where], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (path.read_text() if path.exists() else None) == old
    write_text(path, "newer")
    assert path.read_text() == "newer"


def test_atomic_keeps_old_file_on_error(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="mine"), atomic_write(path) as beside:
        beside.write_text("new")
        raise RuntimeError("mine")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["result"]


def test_atomic_reports_full_disk_without_file(small_disk: Path) -> None:
    path = small_disk / "big.json"
    with pytest.raises(ArtifactError, match=r"big.json: the disk is full; free some space and run the same command"):
        write_json(path, ["x" * 1000] * 3000)
    assert list(small_disk.iterdir()) == []
    write_json(path, {"small": 1})
    with pytest.raises(ArtifactError, match="the disk is full"):
        write_json(path, ["x" * 1000] * 3000)
    assert read_json(path) == {"small": 1}


def test_atomic_uses_default_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "")
    (tmp_path / "plain").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_write_json_is_canonical(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "ä": [1.5, None]})
    write_json(tmp_path / "b", {"ä": [1.5, None], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a") == {"b": 1, "ä": [1.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a", float("nan"))
    assert read_json(tmp_path / "a") == {"b": 1, "ä": [1.5, None]}


def test_read_json_reports_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing; run the stage"):
        read_json(tmp_path / "none.json")
    for content in (b'{"a": 1', b"", b"\xff\xfe"):
        (tmp_path / "torn.json").write_bytes(content)
        with pytest.raises(ArtifactError, match="not valid JSON; remove it"):
            read_json(tmp_path / "torn.json")


def test_digests_depend_on_contents_and_boundaries(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "b").write_bytes(b"same")
    (tmp_path / "c").write_bytes(b"other")
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b") != file_digest(tmp_path / "c")
    assert len({text_digest("ab", "c"), text_digest("a", "bc"), text_digest("abc"), text_digest()}) == 4
