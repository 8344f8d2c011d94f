"""Formatting of numbers and names."""

import re
from collections.abc import Sequence

from ssltransfer.artifacts.metrics import Metrics

MINUS, NOTHING = "\u2212", "\u2013"


def number(value: float | None, digits: int = 1) -> str:
    """A number with a Unicode minus sign; a dash for None."""
    if value is None:
        return NOTHING
    text = f"{value:.{digits}f}"
    return (MINUS + text[1:] if value < 0 else text) if float(text) else text.lstrip("-")


def with_std(metrics: Metrics, value: str | None = None, digits: int = 1) -> str:
    """Mean, with the standard deviation over seeds if there are several."""
    std = metrics.std(value)
    return number(metrics.mean(value), digits) + (f" \u00b1 {number(std, digits)}" if std is not None else "")


def count(value: int, noun: str, plural: str | None = None) -> str:
    """1 image, 1,234 images."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def duration(seconds: float | None) -> str:
    """0.4 s, 52 s, 3 min 20 s, 4 h 05 min."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def join_words(words: Sequence[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def wrap(name: str, width: int) -> list[str]:
    """Lines of at most `width` characters that together are the name, broken after a separator if possible.

    Names are never cut, because two names could differ in any part.
    """
    separator = r"(?:(?<=[-_/+:, ])|(?<=\.)(?!\d))"
    return re.findall(rf"(?s).{{1,{width}}}\Z|.{{{width // 2},{width}}}{separator}|.{{1,{width}}}", name)


def anchor(stage: str, name: str) -> str:
    """A unique id of a result, with no character that needs escaping in a link."""
    return f"{stage}-" + re.sub(r"[^A-Za-z0-9.+-]", lambda m: f"_{ord(m.group()):x}_", name)
