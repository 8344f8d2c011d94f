"""Find the British spellings, retired names and unidiomatic phrases of language.toml in the tracked files.

    python tools/check_language.py [--count] [FILE ...]

Prints `path:line: found -> replacement` for each finding and exits with 1 if there is any. A comment
`language: allow` exempts its line and the string, block of comments or paragraph that ends on its line.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

TRACKED = (
    *("src", "tests", "benchmarks", "tools", "docs", "*.md", "config", "workflow", "Snakefile"),
    *("Makefile", "pyproject.toml", ".github"),
)
ALLOW = "language: allow"
# These consist of what is refused.
EXEMPT = ("tools/language.toml", "tests/tools/test_check_language.py")


class Chunk(NamedTuple):
    """Text that starts at line `first`; `kind` is code (words), text (and phrases) or prose (and chains)."""

    first: int
    kind: str
    text: str

    @property
    def last(self) -> int:
        """Line on which it ends."""
        return self.first + self.text.count("\n")


class Finding(NamedTuple):
    """What was found in a line, and what to write instead."""

    line: int
    found: str
    replacement: str


class Rules:
    """The patterns of a file such as language.toml."""

    def __init__(self, path: Path):
        tables = tomllib.loads(path.read_text())
        lists = {f"<{name}>": words.replace("\n", " ").replace(" ", "|") for name, words in tables["lists"].items()}

        def compiled(table: dict[str, str], space: str = " ") -> dict[re.Pattern[str], str]:
            named = {re.sub("<[a-z]+>", lambda name: lists[name[0]], pattern): new for pattern, new in table.items()}
            return {re.compile(pattern.replace(" ", space), re.IGNORECASE): new for pattern, new in named.items()}

        self.words = compiled(tables["words"])
        self.phrases = compiled(tables["phrases"], space="[ \n]")
        self.chains = compiled(tables["chains"])
        self.foreign = re.compile("|".join(tables["foreign"]["patterns"]), re.IGNORECASE)
        self.american = cache(self._american)

    def _american(self, word: str) -> str:
        def like(match: re.Match[str], new: str) -> str:
            new = match.expand(new)
            return new.upper() if match[0].isupper() else new.capitalize() if match[0][0].isupper() else new

        for pattern, new in self.words.items():
            word = pattern.sub(partial(like, new=new), word)
        return word

    def findings(self, chunk: Chunk) -> Iterator[Finding]:
        """Everything refused in a chunk, in no order."""
        text = re.sub(r"[ \t]*\n[ \t]*", "\n", self.foreign.sub("", chunk.text))
        prose = re.sub(r"(`+)[^`]+\1", lambda span: re.sub(r"[^\n]", "`", span[0]), text)
        patterns = {} if chunk.kind == "code" else self.phrases
        if chunk.kind == "prose":
            patterns = patterns | self.chains
        found = [(match, self.american(match[0])) for match in re.finditer(r"\w+", text)]
        found = [(match, new) for match, new in found if match[0] != new]
        found += [(match, advice) for pattern, advice in patterns.items() for match in pattern.finditer(prose)]
        for match, new in found:
            line = chunk.first + text.count("\n", 0, match.start())
            yield Finding(line, re.sub(r"\s+", " ", match[0].strip()), new)

    def check(self, path: Path) -> list[Finding]:
        """Everything refused in a file and its name, by line."""
        found = set(self.findings(Chunk(1, "code", str(path))))
        reader = READERS.get(path.suffix or path.name)
        if reader is None:
            return sorted(found)
        source = path.read_text()
        lines = source.split("\n")
        for chunk in reader(source):
            if ALLOW not in lines[chunk.last - 1]:
                found |= {finding for finding in self.findings(chunk) if ALLOW not in lines[finding.line - 1]}
        return sorted(found)


def paragraphs(source: str, kind: str = "text") -> Iterator[Chunk]:
    """Runs of lines that are not blank."""
    for match in re.finditer(r"(?:^.*\S.*$\n?)+", source, re.MULTILINE):
        yield Chunk(1 + source.count("\n", 0, match.start()), kind, match[0].rstrip())


def python_chunks(source: str) -> Iterator[Chunk]:
    """Names, strings and comments. Adjacent strings are one chunk, and so are the lines of a block of comments."""
    chunk, starts_statement = Chunk(1, "code", ""), True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start
        kind, text = "code", token.string if token.type == tokenize.NAME else ""
        if token.type == tokenize.COMMENT:
            kind, text = "text" if token.line[:column].strip() else "prose", token.string.lstrip("#! ")
        elif tokenize.tok_name[token.type] in ("STRING", "FSTRING_MIDDLE"):
            kind = "prose" if starts_statement else "text"
            text = re.sub(r"^[A-Za-z]*(\"\"\"|'''|\"|')|(\"\"\"|'''|\"|')$", "", token.string)
        elif token.type == tokenize.NL:
            continue
        if kind == chunk.kind != "code" and row <= chunk.last + 1:
            chunk = chunk._replace(text=chunk.text + ("\n" * (row - chunk.last) or " ") + text)
        else:
            yield chunk
            chunk = Chunk(row, kind, text)
        if token.type != tokenize.COMMENT:
            starts_statement = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    yield chunk


def markdown_chunks(source: str) -> Iterator[Chunk]:
    """Lines of code and of tables, and paragraphs."""
    lines, fenced, blank = source.split("\n"), False, True
    for row, line in enumerate(lines, start=1):
        fence = line.lstrip().startswith(("```", "~~~"))
        code, table = fenced or fence or (blank and line.startswith("    ")), line.startswith("|")
        if code or table:
            yield Chunk(row, "code" if code else "text", line)
            lines[row - 1] = ""
        fenced ^= fence
        blank = code or not line.strip()
    yield from paragraphs("\n".join(lines), "prose")


def yaml_chunks(source: str) -> Iterator[Chunk]:
    """Lines without comments, and blocks of comments; for other formats with # too."""
    parts = [re.split(r"(?:^|\s)#+", line, maxsplit=1) for line in source.split("\n")]
    yield from (Chunk(row, "code", part[0]) for row, part in enumerate(parts, start=1))
    yield from paragraphs("\n".join("".join(part[1:]) for part in parts), "prose")


READERS = {
    ".py": python_chunks,
    ".smk": python_chunks,
    "Snakefile": python_chunks,
    ".md": markdown_chunks,
    ".yaml": yaml_chunks,
    ".yml": yaml_chunks,
    ".toml": yaml_chunks,
    "Makefile": yaml_chunks,
    ".css": paragraphs,
    ".j2": paragraphs,
    ".rst": paragraphs,
}


def main(arguments: list[str] | None = None) -> int:
    """Check the files named, or all tracked ones."""
    parser = argparse.ArgumentParser(description="Find British spellings, retired names and unidiomatic phrases.")
    parser.add_argument("files", nargs="*", type=Path, help="default: the tracked files")
    parser.add_argument("--count", action="store_true", help="print only the number of findings per directory")
    options = parser.parse_args(arguments)
    command = ["git", "ls-files", "-z", "--", *TRACKED]
    tracked = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split("\0")
    rules, counts = Rules(Path(__file__).with_name("language.toml")), Counter[str]()
    for path in options.files or [Path(name) for name in tracked if name]:
        if path.is_symlink() or path.as_posix() in EXEMPT:
            continue
        for line, found, replacement in rules.check(path):
            counts[str(path.parent)] += 1
            if not options.count:
                print(f"{path}:{line}: {found} -> {replacement}")
    if options.count:
        print(*(f"{count:6} {directory}" for directory, count in sorted(counts.items())), sep="\n")
    return 1 if counts else 0


if __name__ == "__main__":
    sys.exit(main())
