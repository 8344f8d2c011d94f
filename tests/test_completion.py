"""Completion, by the shell itself."""

from __future__ import annotations

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
def test_zsh_reads_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    run = subprocess.run(
        ["zsh", "-fc", f"autoload -U compinit && compinit -D; . {tmp_path}/script"], capture_output=True
    )
    assert (run.returncode, run.stderr) == (0, b"")
