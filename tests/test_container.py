"""Containerfile: what it copies is enough to install; `--sdm apptainer` asks for an image. No image is built here."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.workflow import ROOT, snakemake, tiny, write_config

COPIED = [
    name for line in re.findall(r"^COPY (.*) \S+$", (ROOT / "Containerfile").read_text(), re.M) for name in line.split()
]


def test_copied_files_are_enough_to_install(tmp_path: Path):
    for name in COPIED:
        copy = shutil.copy if (ROOT / name).is_file() else partial(shutil.copytree, symlinks=True)
        copy(ROOT / name, tmp_path / name)
    assert all(link.exists() for link in (tmp_path / "src/ssltransfer/pipeline").iterdir())
    words = ["make", "--dry-run", "--always-make", ".venv/ready", "TORCH=cpu"]
    make = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert make.returncode == 0, make.stderr
    assert all((tmp_path / path).is_file() for path in re.findall(r"\b(?:tools|envs)/[\w./]+", make.stdout))
    assert (tmp_path / "README.md").is_file() and (tmp_path / "LICENSE").is_file()  # for the metadata


def test_ignored_files_are_all_but_the_copied_ones():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines == ["*", *(f"!{name}" for name in COPIED), "**/__pycache__"]


def test_apptainer_without_an_image_is_refused(tmp_path: Path):
    write_config(tmp_path, tiny())
    run = snakemake(tmp_path, "--dry-run", "--cores", "1", "--sdm", "apptainer")
    assert run.returncode == 1 and "set SSLTRANSFER_CONTAINER to its file or address" in run.stdout
    assert "Traceback" not in run.stdout


@pytest.mark.skipif(bool(shutil.which("apptainer") or shutil.which("singularity")), reason="Apptainer is installed")
def test_image_of_the_environment_is_handed_to_snakemake(tmp_path: Path):
    """Snakemake looks for Apptainer only if the rules have an image."""
    write_config(tmp_path, tiny())
    image = str(tmp_path / "ssltransfer.sif")
    run = snakemake(tmp_path, "--dry-run", "--cores", "1", "--sdm", "apptainer", SSLTRANSFER_CONTAINER=image)
    assert "The apptainer or singularity command has to be available" in run.stdout
