"""Whatever the documents name exists, and the defaults in protocols.md are those of the options."""

from __future__ import annotations

import itertools
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from ssltransfer.cli import KINDS, build_parser, listed
from ssltransfer.config import complete
from ssltransfer.config.backbones import BACKBONES
from ssltransfer.config.entities import Cluster, Features
from ssltransfer.config.methods import METHODS, FeatureDistillation
from ssltransfer.config.protocols import PROTOCOLS
from ssltransfer.config.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
READ = [ROOT / "README.md", ROOT / "config" / "README.md", *DOCS]
CONFIGS = sorted((ROOT / "config").rglob("*.yaml"))
COMMANDED = [*READ, ROOT / "CONTRIBUTING.md", *CONFIGS]
PROTOCOLS_MD = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
HEADINGS = set(re.findall(r"^#+ (\d+\.\d+[a-z]?)\b", PROTOCOLS_MD, re.MULTILINE))
# "protocols 1.2", "protocols.md 1.3(a)", "protocols 1.1 and 1.2": each number after the word.
MENTION = re.compile(r"protocols(?:\.md)?((?:(?:,| and)? \d+\.\d+(?:\([a-z]\)|[a-z])?)+)")
KEYED: dict[str, type[BaseModel]] = {
    **{str(kind.model_fields["name"].default): kind for kind in (*TASKS, *BACKBONES, *METHODS, *PROTOCOLS)},
    "clusters": Cluster,
    "features": Features,
}


def sections_named(text: str) -> set[str]:
    """Section numbers that a text refers to."""
    found = (re.findall(r"\d+\.\d+\(?[a-z]?", group) for group in MENTION.findall(text))
    return {number.replace("(", "") for group in found for number in group}


def code_of(path: Path) -> list[str]:
    """Code of a document: each code span and each line of a fenced or indented block."""
    text = path.read_text(encoding="utf-8")
    fence = re.compile(r"^[ ]*```.*?\n(.*?)^[ ]*```", re.MULTILINE | re.DOTALL)
    lines = [line for block in fence.findall(text) for line in block.splitlines()]
    prose = fence.sub("", text)
    return lines + re.findall(r"^ {4}(\S.*)$", prose, re.MULTILINE) + re.findall(r"`([^`\n]+)`", prose)


def test_docs_sections_are_found() -> None:
    assert sections_named("see protocols.md 1.1 and 1.2; protocols 1.3(a), protocols 2.1c") == {
        "1.1",
        "1.2",
        "1.3a",
        "2.1c",
    }


def test_sources_cite_existing_sections() -> None:
    sources = [source for kind in KINDS for _, _, source in listed(kind)]
    named = set().union(*map(sections_named, sources))
    assert len(named) >= 10
    assert named <= HEADINGS


def test_docstrings_cite_existing_sections() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {number}"
        for path in (ROOT / "src").rglob("*.py")
        for number in sections_named(path.read_text(encoding="utf-8")) - HEADINGS
    }
    assert not wrong


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_docs_mention_every_option_class(kind: str) -> None:
    said = {code for path in DOCS for code in code_of(path)}
    assert {name for name, _, _ in listed(kind)} <= said


def test_docs_protocol_options_match_defaults() -> None:
    claims = list(_claims())
    assert len(claims) > 80
    wrong = [f"{where}: {key} is {found!r}, not {said!r}" for where, key, said, found in claims if said != found]
    assert not wrong


def _claims() -> Iterator[tuple[str, str, Any, Any]]:
    """(section, key, value said, value found) for every `key: value` of protocols.md."""
    config = yaml.safe_load((ROOT / "config" / "noroozi2018.yaml").read_text(encoding="utf-8"))
    for part in re.split(r"^(?=#+ \d)", PROTOCOLS_MD, flags=re.MULTILINE)[1:]:
        heading = part.splitlines()[0]
        owners = [KEYED[name] for name in re.findall(r"`([^`]+)`", part) if name in KEYED]
        for key, text in re.findall(r"`([\w{}.+-]+): ([^`\n]+)`", part):
            said = yaml.safe_load(text)
            if heading.startswith("# 7."):
                yield heading, key, said, _of_mapping(config, key)
            else:
                found = [value for owner in owners for value in _of_spec(owner, key)]
                yield heading, key, said, said if said in found else (found or ["no such option"])[0]


def _of_mapping(content: Any, key: str) -> Any:
    for name in re.split(r"\.(?=[a-z{])", key):
        content = content.get(name, f"no {name}") if isinstance(content, dict) else f"no {name}"
    return content


def _of_spec(owner: type[BaseModel], key: str) -> list[Any]:
    """The default of a dotted option, in JSON's types; the owner's name may stand first."""
    first, _, rest = key.partition(".")
    if KEYED.get(first) is not None and rest:
        return _of_spec(owner, rest) if KEYED[first] is owner else []
    if first not in owner.model_fields:
        return []
    value = owner.model_fields[first].get_default()
    for name in filter(None, rest.split(".")):
        if not isinstance(value, BaseModel) or name not in type(value).model_fields:
            return []
        value = getattr(value, name)
    return [list(value) if isinstance(value, tuple) else value]


def test_compress_example_of_maps_is_valid() -> None:
    block, headless = (
        yaml.safe_load(textwrap.dedent(block))
        for block in re.findall(r"(?:^ {4}.*\n)+", (ROOT / "docs/compress.md").read_text(), re.MULTILINE)
        if "feature-distillation" in block
    )
    images = {"datasets": {"images": {"format": "folder", "root": "images"}}}
    config = complete(images | block)
    method = config.students["student"].method
    assert isinstance(method, FeatureDistillation)
    assert config.model("dino").backbone.spatial_layers == ("norm",) and method.teacher_layer == "norm.cls"
    block["students"]["student"] |= headless["students"]["student"]
    assert complete(images | block).model("student").layers[-1] == "representation"


@pytest.mark.parametrize("path", READ, ids=lambda path: path.name)
def test_docs_relative_links_resolve(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(<?([^)\s>]+)>?[^)]*\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in _anchors(there)):
            broken.append(target)
    assert not broken


def _anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", READ, ids=lambda path: path.name)
def test_docs_make_targets_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    assert "demo" in targets
    said = {name for code in code_of(path) for name in re.findall(r"(?:^|&& |\$ )make ([a-z][\w-]*)", code)}
    assert said <= targets


def commands_of(path: Path) -> list[list[str]]:
    """Words of each `ssltransfer` command in the code of a document, or in the comments at the top of a YAML file.

    Alternatives (`list formats|tasks`) are separate commands.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        head = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in head)
    fence = re.compile(r"^ *```.*?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
    text = fence.sub(lambda block: textwrap.indent(block[1], "    "), text)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    blocks = re.findall(r"^ +(\S.*)$", text, re.MULTILINE)
    command = re.compile(r"(?:.*&& |\$ |\S*bin/)?ssltransfer ([a-z].*)")
    lines = [match[1] for code in (*blocks, *spans) if (match := command.fullmatch(code))]
    found = []
    for line in lines:
        first, *rest = shlex.split(line, comments=True)
        found += [[first, *choice] for choice in itertools.product(*(word.split("|") for word in rest))]
    return found


def check_command(words: list[str]) -> None:
    """Parse a command without running it. Exits as the command line does, if it is not valid.

    A command that is only named, or has an ellipsis, may lack arguments.
    """
    parser = build_parser()
    if len(words) == 1 or "..." in words:
        (commands,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
        for action in commands[words[0]]._actions if words[0] in commands else ():
            action.required = False
            if not action.option_strings:
                action.nargs = "?"
                action.choices = None
    parser.parse_args([word for place, word in enumerate(words) if word != "..." or words[place - 1].startswith("--")])


@pytest.mark.parametrize("words", ["estimat x.yaml", "list nothing", "student --specs ...", "features --shard"])
def test_check_command_detects_a_wrong_command(words: str) -> None:
    with pytest.raises(SystemExit):
        check_command(words.split())


@pytest.mark.parametrize("path", COMMANDED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documented_commands_parse(path: Path) -> None:
    for words in commands_of(path):
        try:
            check_command(words)
        except SystemExit:
            pytest.fail(f"{path.name}: ssltransfer {shlex.join(words)}")


def test_documented_commands_are_found() -> None:
    named = {path.relative_to(ROOT).as_posix(): commands_of(path) for path in COMMANDED}
    assert ["estimate", "config/studies/noroozi2018.yaml"] in named["config/studies/noroozi2018.yaml"]
    assert ["list", "backbones"] in named["config/evaluations.yaml"]
    assert ["list", "tasks"] in named["CONTRIBUTING.md"]
    assert ["list", "methods"] in named["README.md"] and ["list", "methods"] in named["config/README.md"]
    assert ["features", "--shard", "3/8", "...", "--output", "FILE"] in named["docs/running.md"]
    assert ["list", "references"] in named["docs/protocols.md"]


def test_docs_own_networks_is_a_valid_configuration() -> None:
    """All its blocks together, with a dataset."""
    config: dict[str, Any] = {"datasets": {"images": {"format": "folder", "root": "x"}}}
    text = (ROOT / "docs" / "own_networks.md").read_text(encoding="utf-8")
    for block in re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE):
        for section, entries in yaml.safe_load(textwrap.dedent(block)).items():
            config.setdefault(section, {}).update(entries)
    found = complete(config)
    assert set(found.pretexts) == {"mine", "program", "own", "fetched"}
    assert set(found.features) == {"clip"} and set(found.students) == {"from-clusters", "from-features"}
