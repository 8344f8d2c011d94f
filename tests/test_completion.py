"""Completion, by the shell itself."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
from pathlib import Path

import pytest

from ssltransfer.cli import main


def complete(script: str, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    quoted = " ".join(f"'{word}'" for word in words)
    code = f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _ssltransfer"
    code += '; printf "%s\\n" "${COMPREPLY[@]}"'
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", "bash"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sta"], ["status"]),
        (["list", "pr"], ["protocols", "presets"]),
        (["describe", "compress-1"], ["compress-1q"]),
        (["init", "dis"], ["distill"]),
        (["init", "distill", "--lab"], ["--labeled"]),
        (["run", "demo"], []),
    ],
)
def test_bash_completes(words: list[str], expected: list[str], script: str) -> None:
    assert complete(script, "ssltransfer", *words) == expected


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
@pytest.mark.parametrize(("typed", "expected"), [("sta", b"status "), ("init dis", b"init distill ")])
def test_zsh_completes(typed: str, expected: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a terminal: what is typed before the tab key is completed on the same line."""
    assert main(["completion", "zsh"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    terminal, inside = pty.openpty()
    shell = subprocess.Popen(["zsh", "-fi"], stdin=inside, stdout=inside, stderr=inside, start_new_session=True)
    os.close(inside)
    try:
        ready = f"autoload -U compinit && compinit -D; . {tmp_path}/script; echo rea''dy\n"
        os.write(terminal, ready.encode())
        read_until(terminal, b"ready")
        os.write(terminal, f"ssltransfer {typed}\t".encode())
        read_until(terminal, b"ssltransfer " + expected)
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)


def read_until(terminal: int, wanted: bytes) -> None:
    """Read what a terminal shows until it shows `wanted`, marks of the cursor apart."""
    shown = b""
    while wanted not in re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|[\x07\x08\r]", b"", shown):
        assert select.select([terminal], [], [], 20)[0], shown
        shown += os.read(terminal, 4096)
