"""Tests of tools/check_language.py: what is found in each kind of file, what is not, and the command."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "tools" / "check_language.py"
_spec = importlib.util.spec_from_file_location("check_language", PROGRAM)
assert _spec and _spec.loader
check_language = importlib.util.module_from_spec(_spec)
sys.modules["check_language"] = check_language
_spec.loader.exec_module(check_language)
RULES = check_language.Rules(PROGRAM.with_name("language.toml"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are checked too, so that those of a test are relative."""
    monkeypatch.chdir(tmp_path)


def found(text: str, name: str = "file.py") -> list[tuple[int, str, str]]:
    Path(name).write_text(text)
    return [tuple(finding) for finding in RULES.check(Path(name))]


def phrases(text: str) -> list[str]:
    return [finding[1] for finding in found(f"# {text}\n")]


@pytest.mark.parametrize(
    ("word", "replacement"),
    [
        ("pictures_per_second", "images_per_second"),
        ("TRUNKS", "BACKBONES"),
        ("heldout_loss", "val_loss"),
        ("loss_of_a_guess", "chance_loss"),
        ("NormaliseColours", "NormalizeColors"),
        ("initialisation", "initialization"),
        ("unlabelled", "unlabeled"),
        ("centred", "centered"),
        ("nearestNeighbours", "nearestNeighbors"),
        ("licence", "license"),
        ("millimetres", "millimeters"),
    ],
)
def test_word_has_a_replacement_in_the_same_case(word: str, replacement: str) -> None:
    assert found(f"{word} = 1\n") == [(1, word, replacement)]


@pytest.mark.parametrize(
    "word",
    ["precise", "noise", "raises", "supervised", "otherwise", "four", "hours", "contour", "called", "difference"],
)
def test_american_word_is_accepted(word: str) -> None:
    assert found(f"{word} = 1\n") == []


def test_word_is_found_in_names_strings_comments_and_paths() -> None:
    Path("colours").mkdir()
    text = 'grey = f"{grey} centre"  # fibre\n'
    words = [word for _, word, _ in found(text, "colours/artefacts.py")]
    assert words == ["artefacts", "centre", "colours", "fibre", "grey"]


@pytest.mark.parametrize(
    "sentence",
    [
        "Work is gone on with after a kill.",
        "The student depends; what hangs on it is listed.",
        "The key stands twice.",
        "The file lies under the results.",
        "It is no multiple of the batch.",
        "A text file with a name a line.",
        "There are three bytes a pixel.",
        "Four jobs run, a GPU each.",
        "Do as told.",
        "Another job is at work.",
        "The size says nothing here.",
        "What is there is not computed.",
        "Evaluate the held-out part.",
        "Of the teacher.",
        "First this; then that; then the rest.",
    ],
)
def test_phrase_is_found(sentence: str) -> None:
    assert len(phrases(sentence)) == 1


@pytest.mark.parametrize(
    "sentence",
    [
        "There is no such file.",
        "There are no classes.",
        "The loss is no longer finite.",
        "The error is no larger than before.",
        "Values lie in [0, 1].",
        "The box does not lie in the image.",
        "This goes on the device.",
        "More devices were asked for than exist.",
        "The classes can be told apart.",
        "Of the two, the first is used.",
        "This gives a layer of a model.",
        "One sentence; two clauses. Another; done.",
        "(Ren et al. 2015; Doersch & Zisserman 2017; Long et al. 2015)",
    ],
)
def test_plain_sentence_is_accepted(sentence: str) -> None:
    assert phrases(sentence) == []


def test_phrase_spans_lines_and_adjacent_strings() -> None:
    text = (
        '"""The key stands\n\ntwice; it stands\n    twice."""\n'  # a blank line ends the phrase
        "# The key stands\n# twice.\n"
        'x = ("it is no"\n    " number")\n'
    )
    assert [line for line, *_ in found(text)] == [3, 5, 7]


def test_semicolons_of_strings_that_are_not_docstrings_are_accepted() -> None:
    assert found('"""Read; write; stop."""\nx = "a; b; c"\n') == [(1, "; write;", "two sentences")]


def test_allow_exempts_line_and_string_that_ends_on_it() -> None:
    text = (
        "colour = 1  # language: allow\n"
        'x = """a colour\nof a report\n"""  # language: allow\n'
        "# A colour of the report.\n# language: allow\n"
        "colour = 2\n"
    )
    assert [line for line, *_ in found(text)] == [7]


def test_markdown_code_is_checked_for_words_only() -> None:
    text = (
        "The key `stands twice` and `fibre`.\n\n"
        "```yaml\nit: stands twice\nfibre: resnet18\n```\n\n"
        "Example:\n\n    fibre; stands twice; at work\n\n"
        "| one; two; three |\n\n"
        "It\nstands twice.\n\n"
        "A colour. <!-- language: allow -->\n"
    )
    assert [finding[:2] for finding in found(text, "file.md")] == [
        (1, "fibre"),
        (5, "fibre"),
        (10, "fibre"),
        (15, "stands twice"),
    ]


def test_yaml_keys_and_comments_are_checked() -> None:
    text = "# What hangs\n# on it.\nfibre: {name: resnet18}  # grey\n'#': 1\n"
    assert [finding[:2] for finding in found(text, "file.yaml")] == [(1, "hangs on"), (3, "fibre"), (3, "grey")]


def test_rules_of_snakemake_and_templates_are_read() -> None:
    assert found("rule pretext:\n    output:\n        'fibre'\n", "file.smk") == [(3, "fibre", "fiber")]
    assert found("<p>\ncolour</p>\n", "page.html.j2") == [(2, "colour", "color")]


def test_names_of_other_projects_are_accepted() -> None:
    assert found("x = mimetypes.guess_type(name)  # https://example.org/colour\n") == []


def test_data_files_are_not_read() -> None:
    Path("file.webp").write_bytes(b"\xe8grey")
    assert RULES.check(Path("file.webp")) == []


def test_command_prints_findings_and_fails() -> None:
    Path("good.py").write_text("color = 1\n")
    Path("bad.py").write_text("color = 1\ncolour = 2\n")
    subprocess.run(["git", "init", "--quiet"], check=True)

    def command(*arguments: str) -> tuple[int, str]:
        process = subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True, check=False)
        return process.returncode, process.stdout

    assert command("good.py", "bad.py") == (1, "bad.py:2: colour -> color\n")
    assert command("--count", "good.py", "bad.py") == (1, "     1 .\n")
    assert command("good.py") == (0, "")
    assert command() == (0, "")  # none of them is tracked
    Path("docs").mkdir()
    Path("docs/page.md").write_text("A fibre.\n")
    subprocess.run(["git", "add", "docs", "good.py"], check=True)
    assert command() == (1, "docs/page.md:1: fibre -> fiber\n")
