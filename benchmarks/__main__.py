"""Run benchmarks.

python -m benchmarks [name ...] [--small] [--rounds 5] [--threads N] [--device cuda] [--minutes 6] [--out DIR] [--docs]
"""

from __future__ import annotations

import argparse
import importlib
import io
import pkgutil
import tempfile
import textwrap
import time
import traceback
from contextlib import redirect_stdout
from pathlib import Path

import torch

import benchmarks
from benchmarks.harness import machine, tables
from benchmarks.harness.measure import NotRun, Result, Setting, run_benchmark, run_in_process
from ssltransfer.config import read_config
from ssltransfer.planning.machine import Machine, measured
from ssltransfer.planning.summary import print_estimate
from ssltransfer.processes import available_cores

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "performance.md"
PAPERS = ("noroozi2018",)
BENCHMARKS = sorted(
    found.name for found in pkgutil.iter_modules(benchmarks.__path__) if found.name != "__main__" and not found.ispkg
)


def main(arguments: list[str] | None = None) -> int:
    """Run each benchmark on each device in its own process; returns 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--small", action="store_true", help="tiny sizes: shows that the benchmarks work, in minutes")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each contender")
    parser.add_argument("--threads", type=int, default=available_cores(), help="CPU threads")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="run the cases on this device only; default: on both")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no benchmark after this time")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder of results")
    parser.add_argument("--docs", action="store_true", help="write table and plans into docs/performance.md too")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; choose from {', '.join(BENCHMARKS)}.")
    if given.docs and given.small:
        parser.error("--docs publishes numbers and needs full sizes.")

    about = machine.describe(given.threads, given.rounds, small=given.small)
    results = tables.previous_results(given.out / "results.json", about)
    missing = sorted({*BENCHMARKS} - {*results} - {*given.names}) if given.names else []
    if given.docs and missing:
        parser.error(f"--docs needs the results of all benchmarks; {given.out} lacks {', '.join(missing)}.")
    end = time.monotonic() + 60 * given.minutes
    for name in given.names or BENCHMARKS:
        if time.monotonic() > end:
            results[name] = [NotRun("all cases", f"{given.minutes:g} minutes were over")]
        else:
            results[name] = _on_each_device(name, given.device, given.small, given.rounds, given.threads)
        results = {known: results[known] for known in BENCHMARKS if known in results}
        _write(given.out, about, results)
    table = tables.markdown(about, results)
    print(f"\n{table}\n{given.out}/results.json, results.md, results.svg")
    if given.docs:
        tables.replace_section(DOCS, "results", table)
        tables.replace_section(DOCS, "plans", plans(given.out / "results.json"))
    return int(
        any(isinstance(one, NotRun) and one.why.startswith("failed") for found in results.values() for one in found)
    )


def plans(results: Path) -> str:
    """Cost estimates of the papers' configurations, at measured and at assumed speeds."""
    parts = []
    for paper in PAPERS:
        config = read_config(ROOT / "config" / f"{paper}.yaml")
        for node in (measured(results), Machine()):
            printed = io.StringIO()
            with redirect_stdout(printed):
                print_estimate(config, node)
            summary = printed.getvalue()[printed.getvalue().rindex("\nstage ") :].strip().splitlines()
            lines = [line for line in summary if not line.startswith("Not ready:")]  # the images are not here
            parts.append(f"`config/{paper}.yaml`:\n\n" + textwrap.indent("\n".join(lines), "    ") + "\n")
    return "\n".join(parts)


def _on_each_device(name: str, only: str | None, small: bool, rounds: int, threads: int) -> list[Result]:
    results: list[Result] = []
    try:
        module = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as missing:  # a machine may have no faiss
        return [NotRun("all cases", f"{missing.name} is not installed")]
    for device in getattr(module, "DEVICES", ("cpu",)):
        if only and device != only:
            continue
        print(f"benchmarks: {name} on {device}", flush=True)
        if device == "cuda" and not torch.cuda.is_available():
            results.append(NotRun("all cases on a GPU", "no GPU"))
            continue
        visible = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
        try:
            with tempfile.TemporaryDirectory() as folder:
                setting = Setting(small, rounds, threads, device, Path(folder))
                results += run_in_process(
                    run_benchmark, name, setting, environment={"OMP_NUM_THREADS": str(threads), **visible}
                )
        except Exception as error:  # a failure must not stop the others
            traceback.print_exc()
            results.append(NotRun(f"all cases on {device}", f"failed ({str(error).splitlines()[0]})"))
    return results


def _write(folder: Path, about: dict[str, str | int], results: dict[str, list[Result]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(tables.as_json(about, results), "utf-8")
    (folder / "results.md").write_text(tables.markdown(about, results), "utf-8")
    tables.plot(results, folder / "results.svg")


if __name__ == "__main__":
    raise SystemExit(main())
