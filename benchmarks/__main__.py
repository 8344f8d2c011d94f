"""Run the rows: python -m benchmarks [row ...] [--small] [--rounds 5] [--threads N] [--out DIR] [--docs]."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import pkgutil
import tempfile
import textwrap
import traceback
from contextlib import redirect_stdout
from pathlib import Path

import torch

import benchmarks
from benchmarks.harness import machine, tables
from benchmarks.harness.measure import NotRun, Result, Setting, alone, run_row
from ssltransfer.config import read_config
from ssltransfer.planning import Machine, measured, print_estimate

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "performance.md"
PAPERS = ("noroozi2018",)
ROWS = sorted(
    found.name for found in pkgutil.iter_modules(benchmarks.__path__) if found.name != "__main__" and not found.ispkg
)


def main(arguments: list[str] | None = None) -> int:
    """Every row on every device, each in a process of its own; returns 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; default: all")
    parser.add_argument("--small", action="store_true", help="tiny sizes: shows that the rows work, in minutes")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each contender")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder of results")
    parser.add_argument("--docs", action="store_true", help="write table and plans into docs/performance.md too")
    given = parser.parse_args(arguments)
    unknown = [row for row in given.rows if row not in ROWS]
    if unknown:
        parser.error(f"no row is called {unknown[0]!r}; there are {', '.join(ROWS)}.")
    if given.docs and given.small:
        parser.error("--docs publishes numbers: it wants full sizes.")

    about = machine.described(given.threads, given.rounds, small=given.small)
    results = tables.of_before(given.out / "results.json", about)
    missing = sorted({*ROWS} - {*results} - {*given.rows}) if given.rows else []
    if given.docs and missing:
        parser.error(f"--docs wants all rows, run here one by one or at once; {given.out} lacks {', '.join(missing)}.")
    for row in given.rows or ROWS:
        results[row] = _on_each_device(row, given.small, given.rounds, given.threads)
        results = {name: results[name] for name in ROWS if name in results}
        _write(given.out, about, results)
    table = tables.markdown(about, results)
    print(f"\n{table}\n{given.out}/results.json, results.md, results.svg")
    if given.docs:
        tables.put_between_marks(DOCS, "results", table)
        tables.put_between_marks(DOCS, "plans", plans(given.out / "results.json"))
    return int(
        any(isinstance(one, NotRun) and one.why.startswith("failed") for found in results.values() for one in found)
    )


def plans(results: Path) -> str:
    """What the papers cost at the paces of these results, and at assumed ones."""
    parts = []
    for paper in PAPERS:
        config = read_config(ROOT / "config" / f"{paper}.yaml")
        for node in (measured(results), Machine()):
            said = io.StringIO()
            with redirect_stdout(said):
                print_estimate(config, node)
            summary = said.getvalue()[said.getvalue().rindex("\nstage ") :].strip()
            parts.append(f"`config/{paper}.yaml`:\n\n" + textwrap.indent(summary, "    ") + "\n")
    return "\n".join(parts)


def _on_each_device(row: str, small: bool, rounds: int, threads: int) -> list[Result]:
    results: list[Result] = []
    for device in getattr(importlib.import_module(f"benchmarks.{row}"), "DEVICES", ("cpu",)):
        print(f"benchmarks: {row} on {device}", flush=True)
        if device == "cuda" and not torch.cuda.is_available():
            results.append(NotRun("all cases on a GPU", "no GPU"))
            continue
        visible = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
        try:
            with tempfile.TemporaryDirectory() as folder:
                setting = Setting(small, rounds, threads, device, Path(folder))
                results += alone(run_row, row, setting, environment={"OMP_NUM_THREADS": str(threads), **visible})
        except Exception as error:  # one row's fault must not cost the others
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
