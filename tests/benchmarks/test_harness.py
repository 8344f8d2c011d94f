"""The harness on contenders of known speed, and every benchmark at tiny sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.__main__ import BENCHMARKS, main  # noqa: E402
from benchmarks.harness import tables  # noqa: E402
from benchmarks.harness.measure import OURS, Comparison, Figure, NotRun, interleave, run_in_process  # noqa: E402

COMPARED = Comparison(
    "sorting", 10, "rows", {OURS: [1.0, 2.0, 4.0], "them": [8.0, 6.0, 4.0]}, {"them": 3.5}, upper_bounds=("them",)
)


def test_interleave_alternates_and_drops_the_first_round() -> None:
    events: list[str] = []

    def call(name: str, seconds: float) -> float:
        events.append(name)
        return seconds + len(events)

    samples = interleave(
        {OURS: lambda: call("a", 0.0), "them": lambda: call("b", 0.5)}, 2, lambda name: events.append("before " + name)
    )
    assert events == ["before ours", "a", "before them", "b"] * 3
    assert samples == {OURS: [6.0, 10.0], "them": [8.5, 12.5]}
    events.clear()
    assert interleave({OURS: lambda: call("a", 0.0)}, 2, warm_up=False) == {OURS: [1.0, 2.0]}


def test_speed_is_ratio_of_medians_with_range() -> None:
    assert COMPARED.speed("them") == (3.0, 1.0, 8.0)


def test_markdown_shows_met_missed_and_not_run() -> None:
    results: dict[str, list[Any]] = {
        "sort": [COMPARED, Comparison("again", 1, "fits", COMPARED.samples, {"them": 3.0, "nobody's goal": None})],
        "start": [Figure("idle", "s", [4.0, 6.0, 5.0], 5.0, {}), NotRun("on a GPU", "no GPU")],
    }
    results["sort"][1].samples["nobody's goal"] = [1.0, 1.0, 1.0]
    lines = tables.markdown({"processor": "abacus", "host": "secret"}, results).splitlines()
    assert lines[0] == "processor abacus"
    assert [line.count("|") for line in lines[2:]] == [len(tables.HEAD) + 1] * 7
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:]]
    assert [row[7] for row in cells] == ["**no**", "yes", "–", "yes", "–"]
    assert cells[0][2:6] == ["5 rows/s (2)", "them", "2 rows/s (1)", "3.00x as fast (1.00–8.00)"]
    assert cells[1][2] == "2 s (1)" and cells[3][2] == "5 s (4)" and cells[4][2] == "not run: no GPU"
    assert json.loads(tables.as_json({}, results))["results"]["start"][0]["samples"] == [4.0, 6.0, 5.0]


def test_previous_results_are_kept_on_the_same_machine(tmp_path: Path) -> None:
    results: dict[str, list[Any]] = {
        "sort": [COMPARED],
        "start": [Figure("idle", "s", [4.0], 5.0, {}), NotRun("on a GPU", "no GPU")],
    }
    file = tmp_path / "results.json"
    assert tables.previous_results(file, {"cores": 2}) == {}
    file.write_text(tables.as_json({"cores": 2}, results))
    kept = tables.previous_results(file, {"cores": 2})
    assert tables.markdown({}, kept) == tables.markdown({}, results)
    assert tables.previous_results(file, {"cores": 4}) == {}


def test_replace_section_can_be_repeated(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    begin, end = "<!-- sums: written by python -m benchmarks --docs -->", "<!-- end of sums -->"
    file.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    for text in ("one", "two"):
        tables.replace_section(file, "sums", text)
        assert file.read_text() == f"before\n{begin}\n\n{text}\n{end}\nafter\n"
    with pytest.raises(ValueError, match=r"page\.md: has no lines"):
        tables.replace_section(file, "others", "one")
    docs = (ROOT / "docs/performance.md").read_text()
    for what in ("results", "plans"):
        assert docs.count(f"<!-- {what}: written by") == docs.count(f"<!-- end of {what} -->") == 1
    assert [name for name in BENCHMARKS if f"| `{name}` |" not in docs] == []


def test_run_in_process_sets_environment_and_reraises() -> None:
    assert run_in_process(os.getenv, "BENCHED", environment={"BENCHED": "yes"}) == "yes"
    assert "BENCHED" not in os.environ
    with pytest.raises(FileNotFoundError):
        run_in_process(os.listdir, "/nowhere at all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stroe"], "unknown benchmark 'stroe'"),
        (["--docs", "--small"], "needs full sizes"),
        (["--docs", "store", "--out", "/none"], "/none lacks busy, extraction"),
    ],
)
def test_main_refuses_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_runs_at_tiny_sizes(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", name, "--small", "--rounds", "1", "--threads", "1"]
    run = subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, text=True, capture_output=True)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads((tmp_path / "results.json").read_text())["results"][name]
    assert any(one["kind"] != "NotRun" for one in found)
    assert all(len(samples) == 1 for one in found if one["kind"] == "Comparison" for samples in one["samples"].values())
    assert name in (tmp_path / "results.md").read_text() and (tmp_path / "results.svg").is_file()
