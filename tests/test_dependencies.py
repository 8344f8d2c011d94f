"""Every import is a dependency of pyproject.toml, and every dependency is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK = (ROOT / "envs" / "requirements.lock").read_text()
OWN = {
    "ssltransfer",
    "snakemake_logger_plugin_ssltransfer",
    "toyworld",
    "tests",
    "benchmarks",
    "docs",
    "tools",
    "check_language",
}
WRITTEN = {"zoo", "zoo_options"}  # by the tests themselves
# Not imported by src/.
USED_OTHERWISE = {
    "onnx": "imported by torch's exporter",
}
# Loggers that bring dozens of packages: installed by those who use them, and not in the lock.
LOGGERS = {"mlflow", "wandb"}
# Installed with these.
PARTS = {
    "annotated-types": "pydantic",
    "triton": "torch",
    "snakemake-interface-logger-plugins": "snakemake",
    "threadpoolctl": "scikit-learn",
}
# Names at conda-forge.
CONDA = {"matplotlib-base": "matplotlib", "py-opencv": "opencv-contrib-python-headless", "pytorch-cpu": "torch"}


def name_of(requirement: str) -> str:
    """Name of a requirement; the builds of faiss are one package."""
    match = re.match(r"[a-z0-9-]+", requirement.lower().replace("_", "-"))
    assert match
    return "faiss" if match[0] in ("faiss-cpu", "faiss-gpu") else PARTS.get(match[0], match[0])


def imports(folder: str) -> Iterator[tuple[str, str | None]]:
    """(name of the distribution, extra that `import_extra` names) of each import below a folder."""
    distributions = packages_distributions()
    for file in (ROOT / folder).rglob("*.py"):
        for module, extra in modules(ast.parse(file.read_text(encoding="utf-8"))):
            top = module.partition(".")[0]
            if top not in OWN | WRITTEN and top not in sys.stdlib_module_names:
                yield name_of(distributions.get(top, [top])[0]), extra


def modules(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, None) for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module, None
            case ast.Call(
                func=ast.Name(id="import_extra"),
                args=[ast.Constant(value=str(module)), ast.Constant(value=str(extra)), *_],
            ):
                yield module, extra
            case ast.Call(func=ast.Name(id="import_module"), args=[ast.Constant(value=str(module))]):
                yield module, None


def names(requirements: Iterable[str]) -> set[str]:
    return {name_of(requirement) for requirement in requirements}


REQUIRED = names(PROJECT["dependencies"])
SOURCE = set(imports("src"))


def test_every_import_is_a_dependency():
    assert {name for name, extra in SOURCE if extra is None} <= REQUIRED
    for name, extra in SOURCE:
        assert extra is None or name in names(EXTRAS[extra])


def test_every_dependency_is_imported():
    extras = set().union(*(names(EXTRAS[extra]) for extra in EXTRAS if extra != "dev"))
    assert (REQUIRED | extras) - {name for name, _ in SOURCE} == set(USED_OTHERWISE)
    assert not REQUIRED & extras


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "docs", "tools"])
def test_every_import_of_the_tests_and_tools_is_a_dependency(folder: str):
    everything = REQUIRED.union(*map(names, EXTRAS.values()))
    assert {name for name, _ in imports(folder)} <= everything


def test_dev_includes_all_extras():
    own, *_ = EXTRAS["dev"]
    assert own == f"ssltransfer[{','.join(sorted(set(EXTRAS) - LOGGERS - {'dev'}))}]"


def test_lock_holds_every_dependency_and_names_no_index():
    locked = {name_of(line) for line in LOCK.splitlines() if re.match("[a-z]", line)}
    assert REQUIRED.union(*map(names, EXTRAS.values())) - LOGGERS - {"ssltransfer"} <= locked
    assert "://" not in LOCK and "--index-url" not in LOCK and "--find-links" not in LOCK


def test_cpu_conda_environment_is_that_of_pyproject():
    content = yaml.safe_load((ROOT / "envs" / "cpu.yaml").read_text())
    packages = {re.split("[<>=]", line)[0] for line in content["dependencies"]} - {"python"}
    expected = (REQUIRED | names(EXTRAS["hdf5"] + EXTRAS["opencv"])) - {"snakemake"}
    assert {name_of(CONDA.get(package, package)) for package in packages} == expected
