"""The little Markdown that check-lists are made of: lines into tokens, phrases into values.

Not a Markdown parser: headings, check-boxes, `**Label**: value` lines and plain text. What they
mean is decided in `checklist.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from novawf.tasks.importing.plan import numbered_lines


class Heading(NamedTuple):
    """`### text`; `level` is the number of hashes."""

    line: int
    level: int
    text: str


class Box(NamedTuple):
    """`- [ ] text`; `mark` is what the brackets hold."""

    line: int
    indent: int
    mark: str
    text: str


class Label(NamedTuple):
    """`**Name**: value`; `name` in lower case."""

    line: int
    indent: int
    name: str
    value: str


class Text(NamedTuple):
    """Any other line; an empty `text` is a blank line."""

    line: int
    indent: int
    text: str


Token: TypeAlias = Heading | Box | Label | Text

_HEADING = re.compile(r"(#{1,6})\s+(\S.*)")
_CLOSING_HASHES = re.compile(r"(?<=\s)#+$")
_BOX = re.compile(r"(?:[-*+]|\d{1,9}[.)])\s+\[(.)\](?:\s+(.*))?")
_LABEL = re.compile(r"(?:[-*+]\s+)?\*\*([^*:]{1,80}?)(?::\*\*|\*\*\s*:)\s*(.*)")
_EMPHASIS = re.compile(r"(\*\*|__)(?=\S)(.{1,500}?)(?<=\S)\1")
_RULE = re.compile(r"[-*_](?:\s*[-*_]){2,}")
_FENCE = re.compile(r"(`{3,}|~{3,})[^`]*")
_DURATION = re.compile(
    r"\(\s*(?:\d{1,6}(?:\.\d{1,6})?\s*[-–]\s*)?(\d{1,6}(?:\.\d{1,6})?)\s*"  # noqa: RUF001 - people write ranges with the dash
    r"(m|min|mins|minutes?|h|hrs?|hours?|d|days?|w|weeks?)\s*\)",
    re.IGNORECASE,
)
_ONGOING = re.compile(r"\(\s*ongoing\s*\)", re.IGNORECASE)
ID = r"(?:\d+[A-Za-z]?(?:\.\d+[A-Za-z]?)*|[A-Z]\d*)(?!\w)"
"""What a task of a check-list may be called: 1, 1B, 2.3, A."""

# A range or a sub-task (1-3, 1B.2) is taken as one id: no task has it, so it is refused aloud
# instead of being half understood.
_REFERRED = rf"{ID}(?:[-–]\d+[A-Za-z]?)?"  # noqa: RUF001
_SEPARATOR = r"\s*(?:,\s*and\b|,|&|\+|/|\band\b)\s*"
_NOUN = r"(?i:task|objective)s?"
_REFERENCES = re.compile(rf"\b{_NOUN}\s+({_REFERRED}(?:{_SEPARATOR}(?:{_NOUN}\s+)?{_REFERRED})*)")
_BARE_REFERENCES = re.compile(rf"{_REFERRED}(?:{_SEPARATOR}{_REFERRED})*\.?")

_UNIT_S = {"m": 60, "h": 3600, "d": 8 * 3600, "w": 5 * 8 * 3600}
"""Seconds of work: a day of it has eight hours, a week five such days."""


def tokens(text: str) -> Iterator[Token]:
    """The lines of `text` that mean something here; fenced code and rules mean nothing."""
    fence = ""
    for number, raw in numbered_lines(text):
        expanded = raw.expandtabs(4)
        stripped = expanded.strip()
        if fence:
            if stripped.startswith(fence) and not stripped.strip(fence[0]):
                fence = ""
            continue
        if opening := _FENCE.fullmatch(stripped):
            fence = opening[1]
            continue
        indent = len(expanded) - len(expanded.lstrip())
        yield _token(number, indent, stripped)


def _token(number: int, indent: int, text: str) -> Token:
    if match := _HEADING.fullmatch(text):
        return Heading(number, len(match[1]), _CLOSING_HASHES.sub("", match[2]).strip())
    if match := _BOX.fullmatch(text):
        return Box(number, indent, match[1], (match[2] or "").strip())
    if match := _LABEL.fullmatch(text):
        return Label(number, indent, match[1].strip().lower(), match[2].strip())
    return Text(number, indent, "" if _RULE.fullmatch(text) else text)


def plain(text: str) -> str:
    """`text` without bold markers; code marks stay, as they show what is a name."""
    return _EMPHASIS.sub(r"\2", text).strip()


class Titled(NamedTuple):
    """A title whose bracketed duration was taken off."""

    title: str
    estimate_s: int | None
    ongoing: bool


def titled(text: str) -> Titled:
    """Split `Title (1.5 hours)` or `Title (Ongoing)`; of a range the upper end counts."""
    text = plain(text)
    opening = text.rfind("(")
    if opening > 0:
        title, bracket = text[:opening].rstrip(), text[opening:]
        if match := _DURATION.fullmatch(bracket):
            seconds = float(match[1]) * _UNIT_S[match[2][0].lower()]
            return Titled(title, round(seconds), ongoing=False)
        if _ONGOING.fullmatch(bracket):
            return Titled(title, None, ongoing=True)
    return Titled(text, None, ongoing=False)


def references(text: str, bare: bool = False) -> tuple[str, ...]:
    """The ids in `Task 1B` or `Tasks 1A, 1B and 2C`, in upper case, each once.

    With `bare` also `1A, 1B`, where the text is nothing but ids.
    """
    if bare and _BARE_REFERENCES.fullmatch(text):
        lists = [text]
    else:
        lists = [match[1] for match in _REFERENCES.finditer(text)]
    found = (identifier for part in lists for identifier in re.findall(_REFERRED, part))
    return tuple(dict.fromkeys(identifier.upper() for identifier in found))
