"""`--sdm conda` with a stand-in for conda: the scripts of envs/ work where Snakemake runs them, and jobs use their result."""

from __future__ import annotations

import json
import os
import shlex
import sys
import sysconfig
from pathlib import Path

import pytest
from tests.helpers.workflow import ROOT, results, snakemake, tiny, write_config

# Makes an environment with the dependencies of this one but without this package, and a `uv` that writes down its
# arguments. Snakemake calls `conda info`, `config`, `--version` and `env create`.
CONDA = """#!{python}
import json, os, subprocess, sys
from pathlib import Path

base = Path(sys.argv[0]).parents[1]
words = sys.argv[1:]
if words == ["--version"]:
    print("conda 25.1.1")
elif words[0] == "info":
    print(json.dumps({{"conda_prefix": str(base), "platform": "linux-64"}}))
elif words[0] == "config":
    print(json.dumps({{"get": {{"channel_priority": "strict"}}}}))
elif words[:2] == ["env", "create"]:
    prefix = Path(words[words.index("--prefix") + 1])
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True)
    (site,) = prefix.glob("lib/*/site-packages")
    (site / "dependencies.pth").write_text({dependencies!r})
    uv = prefix / "bin" / "uv"
    uv.write_text('#!/bin/sh\\nprintf "%s\\\\n" "$@" > "$(dirname "$0")/uv.txt"\\n')
    uv.chmod(0o755)
elif words[0] != "clean":
    sys.exit(f"conda {{words}} is not expected")
"""
ACTIVATE = 'export PATH="$1/bin:$PATH"\n'


@pytest.fixture
def conda(tmp_path: Path) -> Path:
    """The folder of the command."""
    folder = tmp_path / "conda" / "bin"
    folder.mkdir(parents=True)
    command = folder / "conda"
    command.write_text(CONDA.format(python=sys.executable, dependencies=sysconfig.get_path("purelib")))
    command.chmod(0o755)
    (folder / "activate").write_text(ACTIVATE)
    return folder


def test_jobs_run_in_their_conda_environments(conda: Path, tmp_path: Path):
    write_config(tmp_path, tiny())
    index = "results/index/objects-val.parquet"
    path = os.pathsep.join([str(conda), os.environ["PATH"]])
    run = snakemake(tmp_path, "--cores", "1", index, "--sdm", "conda", PATH=path)
    assert run.returncode == 0, run.stdout
    assert json.loads((results(tmp_path) / "index/objects-val.run.json").read_text())["ssltransfer"]
    (environment,) = (found.parents[1] for found in tmp_path.glob(".snakemake/conda/*/bin/ssltransfer"))
    for package in ("ssltransfer", "toyworld"):
        (link,) = environment.glob(f"lib/*/site-packages/{package}")
        assert link.resolve() == ROOT / "src" / package
    # Without the environment's command another `ssltransfer` of the PATH would run.
    log = (tmp_path / "results/logs/index/objects-val.log").read_text()
    assert "Traceback" not in log
    (environment / "bin" / "ssltransfer").write_text("#!/bin/sh\necho the command of the environment; exit 3\n")
    run = snakemake(tmp_path, "--cores", "1", index, "--sdm", "conda", "--forcerun", "index", PATH=path)
    assert run.returncode == 1 and "the command of the environment" in run.stdout


def test_gpu_environment_is_made_from_the_lock(conda: Path, tmp_path: Path):
    write_config(tmp_path, tiny())
    path = os.pathsep.join([str(conda), os.environ["PATH"]])
    run = snakemake(tmp_path, "--cores", "1", "--sdm", "conda", "--conda-create-envs-only", PATH=path)
    assert run.returncode == 0, run.stdout
    assert len(list(tmp_path.glob(".snakemake/conda/*/bin/ssltransfer"))) == 2
    (words,) = tmp_path.glob(".snakemake/conda/*/bin/uv.txt")
    *start, lock = words.read_text().splitlines()
    assert shlex.join(start) == f"pip install --python {words.parent / 'python'} --require-hashes -r"
    assert Path(lock).resolve() == ROOT / "envs" / "requirements.lock"
