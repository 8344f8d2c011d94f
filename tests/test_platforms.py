"""macOS, as far as Linux without its own functions resembles it, and the refusal of Windows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.workflow import ROOT, results, snakemake, tiny, write_config

LIKE_MACOS = os.pathsep.join([str(ROOT / "tests/helpers/like_macos"), str(ROOT / "src")])

LOADING = """
import sys
from pathlib import Path
from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.workdir import peak_memory_mb
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.processes import available_cores
from ssltransfer.training.memory_budget import memory_budget

if __name__ == "__main__":
    index = read_index(Path(sys.argv[1]))
    keys = sequential_keys(range(8), 4)
    batches = list(load_batches(index, ResizeCenterCrop(32, 32), keys, seed=0, workers=1))
    print(available_cores() > 0, memory_budget() > 0, peak_memory_mb() > 0, len(batches))
"""


def test_windows_is_refused_with_one_sentence():
    code = "import sys; sys.platform = 'win32'; import ssltransfer"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("ssltransfer: Windows itself is not supported") and "WSL2" in run.stderr
    assert run.stderr.count("\n") == 1


def test_batches_load_without_the_functions_of_linux(objects_path: Path, tmp_path: Path):
    """Cores, memory and loader workers, which are spawned and not told who sent a signal."""
    program = tmp_path / "program.py"
    program.write_text(LOADING)
    environment = {**os.environ, "PYTHONPATH": LIKE_MACOS}
    words = [sys.executable, str(program), str(objects_path)]
    run = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert run.stdout == "True True True 2\n", run.stderr


@pytest.mark.parametrize("code", ["import os; os.sched_getaffinity(0)", "open('/proc/self/status')"])
def test_functions_of_linux_are_missing(code: str):
    """The tests above and below would notice their use by the package."""
    code = f"exec(compile({code!r}, '/src/ssltransfer/module.py', 'exec'))"
    environment = {**os.environ, "PYTHONPATH": LIKE_MACOS}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.returncode == 1 and ("AttributeError" in run.stderr or "FileNotFoundError" in run.stderr)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_chain_runs_without_the_functions_of_linux(tmp_path: Path):
    write_config(tmp_path, tiny())
    run = snakemake(tmp_path, "--cores", "1", PYTHONPATH=LIKE_MACOS, SSLTRANSFER_WORKERS="1")
    assert run.returncode == 0, run.stdout[-4000:]
    assert (results(tmp_path) / "report/index.html").is_file()
