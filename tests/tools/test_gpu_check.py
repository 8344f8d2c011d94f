"""`make gpu-check` on a machine that has torch and no more: all that it imports is there or in its wheels."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "tools" / "gpu_check.sh").read_text("utf-8")
NAMES = runpy.run_path(str(ROOT / "tools" / "gpu_wheels.py"))["NAMES"]
THERE = ["torch", "torchvision", "triton", "numpy", "scipy", "h5py", "pillow", "opencv-contrib-python-headless"]
THERE += ["pyarrow", "matplotlib", "tqdm", "psutil", "pytest", "ssltransfer"]
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def with_needs(names: list[str]) -> set[str]:
    """Distributions with those they require, without their extras."""
    found: set[str] = set()
    while names:
        name = names.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        try:
            needs = [] if name == "ssltransfer" else requires(name) or []
        except PackageNotFoundError:  # of another platform
            continue
        names += [match[0] for need in needs if "extra ==" not in need and (match := re.match(r"[\w.-]+", need))]
    return found


@pytest.fixture(scope="module")
def blocker() -> str:
    """Python code that makes all other packages of this environment missing."""
    allowed = with_needs([*THERE, *NAMES])
    modules = {
        module
        for module, distributions in packages_distributions().items()
        if not {name.lower().replace("_", "-") for name in distributions} & allowed
    }
    assert {"snakemake", "faiss", "hypothesis", "timm"} <= modules
    return f"BLOCKED = {modules!r}\n{BLOCKER}"


def test_gpu_tests_import_without_the_whole_environment(blocker: str) -> None:
    files = [str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text("utf-8")]
    words = ["-m", "gpu", "-p", "pytest_timeout", "--collect-only", "-q", *files]
    code = f"{blocker}\nimport pytest\nsys.exit(pytest.main({words!r}))"
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:]
    assert sum(map(int, re.findall(r"\.py: (\d+)", run.stdout))) > 50


def test_gpu_benchmarks_run_without_the_whole_environment(blocker: str, tmp_path: Path) -> None:
    """Those that compare with faiss say that it is missing, and all say that there is no GPU."""
    match = re.search(r"-m benchmarks ([a-z ]+)", SCRIPT)
    assert match
    words = [*match[1].split(), "--device", "cuda", "--out", str(tmp_path)]
    code = f"{blocker}\nfrom benchmarks.__main__ import main\nsys.exit(main({words!r}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    written = (tmp_path / "results.md").read_text("utf-8")
    assert written.count("no GPU") == 4 and written.count("faiss is not installed") == 3
    late = f"{blocker}\nfrom benchmarks.__main__ import main\nsys.exit(main({[*words, '--minutes', '0']!r}))"
    subprocess.run([sys.executable, "-c", late], cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "results.md").read_text("utf-8").count("0 minutes were over") == 7


def test_gpu_check_without_a_gpu_is_refused() -> None:
    run = subprocess.run(["bash", str(ROOT / "tools" / "gpu_check.sh")], capture_output=True, text=True)
    assert run.returncode != 0
    assert run.stderr.strip().endswith("torch finds no GPU here.")
