"""The workflow that is installed with the package: Snakefile, rules, profiles, environments and configurations.

In the repository this folder links to those files. In a wheel it holds them.
"""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ssltransfer.config import ConfigError
from ssltransfer.errors import UserError
from ssltransfer.extras import import_extra

FOLDER = Path(__file__).parent
SNAKEFILE = FOLDER / "Snakefile"
COPIED = ("config", "profiles")
CORES = re.compile(r"-[cj]\d*|--(cores|jobs|profile|workflow-profile)(=.*)?")


def find_config(name: Path) -> Path:
    """A configuration file, or the shipped one of that name, such as `demo.yaml`.

    Raises:
        ConfigError: there is neither.
    """
    for path in (name, FOLDER / "config" / name, FOLDER / name):
        if path.is_file():
            return path
    shipped = sorted(str(path.relative_to(FOLDER / "config")) for path in (FOLDER / "config").rglob("*.yaml"))
    raise ConfigError(f"{name}: no such configuration file; shipped ones are {', '.join(shipped)}.")


def snakemake_command(config: Path, words: Sequence[str], table: str | None = None) -> list[str]:
    """The command that runs the workflow, on all cores unless `words`, Snakemake's arguments, say otherwise.

    `table`: title of a table of the report, if only what it needs shall run.

    Raises:
        ConfigError: there is no such configuration.
        MissingExtraError: Slurm is used without its plugin for Snakemake.
    """
    if any(Path(word.rpartition("=")[2]).name == "slurm" for word in words):
        import_extra("snakemake_executor_plugin_slurm", "slurm", "Snakemake under Slurm")
    cores = [] if any(map(CORES.fullmatch, words)) else ["--cores", "all"]
    # The equals sign ends the list of files, so that targets may follow.
    files = [f"--snakefile={SNAKEFILE}", f"--configfile={find_config(config)}"]
    if table is not None:
        files.append(f"--config=table={json.dumps(table)}")
    return [sys.executable, "-m", "snakemake", *files, *cores, *words]


def copy_files(target: Path) -> list[Path]:
    """Copy the shipped configurations and profiles into a folder; returns the new folders.

    Raises:
        UserError: one of them exists.
    """
    folders = [target / name for name in COPIED]
    for folder in folders:
        if folder.exists():
            raise UserError(f"{folder}: exists; move it away or choose another folder.")
    for folder in folders:
        shutil.copytree(FOLDER / folder.name, folder)
    return folders
