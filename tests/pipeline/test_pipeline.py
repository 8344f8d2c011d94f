"""The workflow that is installed with the package: found from any folder, and complete in a wheel."""

from __future__ import annotations

import filecmp
import re
import shutil
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

import pytest

from ssltransfer.cli import main
from ssltransfer.config import ConfigError
from ssltransfer.extras import MissingExtraError
from ssltransfer.pipeline import FOLDER, SNAKEFILE, find_config, snakemake_command
from tests.helpers.workflow import ROOT, results, tiny, write_config

BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "Snakefile", "config", "envs", "workflow", "src")


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command `ssltransfer` in a folder."""
    command = [sys.executable, "-m", "ssltransfer.cli", *words]
    return subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_links_lead_to_the_files_of_the_repository():
    assert SNAKEFILE.resolve() == ROOT / "Snakefile"
    for name in ("config", "envs", "workflow"):
        assert (FOLDER / name).resolve() == ROOT / name
    assert (FOLDER / "profiles").resolve() == ROOT / "workflow" / "profiles"


def test_find_config_prefers_an_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(Path("demo.yaml")) == FOLDER / "config" / "demo.yaml"
    assert find_config(Path("config/studies/demo.yaml")) == FOLDER / "config" / "studies" / "demo.yaml"
    (tmp_path / "demo.yaml").write_text("")
    assert find_config(Path("demo.yaml")) == Path("demo.yaml")


def test_unknown_config_error_lists_the_shipped_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^demo: no such configuration file; shipped ones are .*demo\.yaml, "):
        find_config(Path("demo"))


@pytest.mark.parametrize("words", [["-c2"], ["--cores=2"], ["-j", "2"], ["--workflow-profile", "mine"]])
def test_cores_are_all_unless_given(words: list[str]):
    assert snakemake_command(Path("demo.yaml"), ["-n"])[-3:] == ["--cores", "all", "-n"]
    assert "all" not in snakemake_command(Path("demo.yaml"), words)


@pytest.mark.parametrize("word", ["--workflow-profile=slurm", "--executor=slurm", "workflow/profiles/slurm"])
def test_slurm_without_its_plugin_names_the_extra(word: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "snakemake_executor_plugin_slurm", None)
    with pytest.raises(MissingExtraError, match=r"ssltransfer\[slurm\]"):
        snakemake_command(Path("demo.yaml"), [word])


def test_init_copies_configurations_and_profiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["init", "--output", str(tmp_path / "mine")]) == 0
    for name in ("config", "profiles"):
        compared = filecmp.dircmp(FOLDER / name, tmp_path / "mine" / name)
        assert compared.common and not compared.left_only and not compared.diff_files
    assert main(["init", "--output", str(tmp_path / "mine")]) == 1
    assert "exists; move it away" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "mine" / "config")
    assert main(["init", "--output", str(tmp_path / "mine")]) == 1 and not (tmp_path / "mine" / "config").exists()


TABLES = {
    "title": "Two tables",
    "tables": [
        {"title": "Table 1: all", "columns": ["nearest"]},
        {"title": "Table 2: {one} & 'more'", "columns": ["nearest"], "rows": ["puzz*"]},
    ],
}


def test_dry_run_of_a_table_plans_what_it_needs(tmp_path: Path):
    write_config(tmp_path, tiny(report=TABLES))
    for words in (["--table", "{One}", "config.yaml", "-n"], ["config.yaml", "-n", "--table={One}", "--cores", "1"]):
        done = run(tmp_path, "run", *words)
        assert done.returncode == 0, done.stdout
        jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
        assert jobs == {"index": "2", "pretext": "1", "features": "2", "evaluate": "1", "report": "1"} | {
            "all": "1",
            "total": "8",
        }
    done = run(tmp_path, "run", "config.yaml", "--table", "table", "-n")
    assert done.returncode == 1 and "name one of: Table 1: all; Table 2: {one} & 'more'." in done.stdout


@pytest.mark.slow
def test_run_of_a_table_makes_its_own_report(tmp_path: Path):
    write_config(tmp_path, tiny(report=TABLES))
    done = run(tmp_path, "run", "config.yaml", "--cores", "1", "--table", "{one}")
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "results/report/index.html").exists() and not (tmp_path / "results/student").exists()
    assert (tmp_path / "results/report/tables/table-2-one-more/index.html").is_file()
    lines = done.stdout.splitlines()
    assert any(line.startswith("Table 2: {one} & 'more'") for line in lines) and "Table 1" not in done.stdout
    again = run(tmp_path, "run", "config.yaml", "--table", "{one}", "-n")
    assert "Nothing to be done" in again.stdout, again.stdout


def test_run_plans_the_jobs_of_a_configuration_of_another_folder(tmp_path: Path):
    write_config(tmp_path, tiny())
    done = run(tmp_path, "run", "config.yaml", "--dry-run", "--until", "index")
    assert done.returncode == 0, done.stdout
    assert "rule index" in done.stdout and "profiles/default" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wheel_runs_the_chain_from_another_folder(tmp_path: Path):
    """In an environment with the dependencies of this one, but without this package and the repository."""
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    for name in BUILT_FROM:
        copy = shutil.copy if (ROOT / name).is_file() else partial(shutil.copytree, symlinks=True)
        copy(ROOT / name, source / name)
    uv, environment = Path(sys.executable).with_name("uv"), tmp_path / "venv"
    build = ["build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([uv, *build, "--out-dir", tmp_path / "wheel", source], check=True)
    shutil.rmtree(source)
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    python = environment / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True)
    (site,) = environment.glob("lib/*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    folder.mkdir()
    write_config(folder, tiny())
    done = subprocess.run(
        [environment / "bin" / "ssltransfer", "run", "config.yaml", "--cores", "1"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SSLTRANSFER_WORKERS": "0"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert (results(folder) / "report/index.html").is_file()
    assert str(site / "ssltransfer/pipeline/profiles/default") in done.stdout
