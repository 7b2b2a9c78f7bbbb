"""The outline of a check-list: its headings, their fields and their check-boxes, in order.

It knows what is a task, a section or a success metric, and gives out keys. What waits for what,
and what becomes a draft, is decided in `checklist.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from novawf.errors import InvalidImport
from novawf.tasks.importing.markdown import (
    ID,
    Box,
    Heading,
    Label,
    Text,
    Titled,
    plain,
    titled,
    tokens,
)
from novawf.tasks.importing.plan import Skipped

METRIC = "success metric"
CRITERION = "success criterion"

_TASK = re.compile(rf"(?i:task)\s+({ID})\s*[:.)–-]\s*(.*)")  # noqa: RUF001
_NUMBERED = re.compile(r"(\d+(?:\.\d+)+|\d+(?=[.)]))[.)]?\s+(.*)")
_METRICS = re.compile(
    r"success\s+metrics?|(?:success|acceptance)\s+criteri|definition\s+of\s+done|^(?:metrics|kpis)$",
    re.IGNORECASE,
)
_FINISHED = re.compile(r"\W*(?:done|completed?|finished|cancell?ed)\b", re.IGNORECASE)
_NUMBERED_PRIORITY = re.compile(r"priority\s+(\d{1,3})\b", re.IGNORECASE)
_PRIORITIES = ("critical", "high", "medium", "low")
_HORIZONS = (
    (re.compile(r"\bimmediate\b", re.IGNORECASE), "high"),
    (re.compile(r"\bshort[- ]term\b", re.IGNORECASE), "medium"),
    (re.compile(r"\bmedium[- ]term\b", re.IGNORECASE), "low"),
    (re.compile(r"\blong[- ]term\b", re.IGNORECASE), "background"),
)


@dataclass(slots=True, eq=False)
class Item:
    """A check-box that is a task."""

    key: str
    line: int
    indent: int
    name: Titled
    done: bool
    parent: Item | None
    children: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Block:
    """A heading and its check-boxes: a task (`key` is set) or a plain section."""

    line: int
    level: int
    name: Titled
    section: str
    priority: str
    is_metrics: bool
    key: str | None = None
    identifier: str | None = None
    """What other tasks call it: `1B`; only a task has one."""
    is_numbered: bool = False
    fields: dict[str, str] = field(default_factory=dict)
    field_lines: dict[str, int] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    top_items: list[Item] = field(default_factory=list)

    @property
    def is_task(self) -> bool:
        """A numbered heading without check-boxes is a chapter, not a task."""
        return self.key is not None and (bool(self.items) or not self.is_numbered)

    @property
    def is_done(self) -> bool:
        """Whether the file says that the task is done."""
        if _FINISHED.match(self.fields.get("status", "")):
            return True
        return bool(self.items) and all(item.done for item in self.items)


@dataclass(slots=True)
class Outline:
    """The blocks in order, and the check-boxes that are no tasks."""

    blocks: list[Block] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Section:
    level: int
    title: str
    priority: str | None
    is_metrics: bool


def outline_of(text: str, source: str) -> Outline:
    """Read `text`. Raises InvalidImport, naming the line in `source`, for a task met twice."""
    reader = _Reader(source)
    for token in tokens(text):
        match token:
            case Heading():
                reader.heading(token)
            case Box():
                reader.box(token)
            case Label():
                reader.label(token)
            case Text():
                reader.text(token)
    return reader.outline


class _Reader:
    """Takes the tokens in order and collects blocks."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.outline = Outline()
        self._sections: list[_Section] = []
        self._nesting: list[Item] = []
        self._label: str | None = None
        self._continues = False
        self._lines: dict[str, int] = {}
        self._loose_items = 0
        self._block = self._open(Heading(0, 0, ""), "")

    def heading(self, token: Heading) -> None:
        self._nesting.clear()
        self._label, self._continues = None, False
        text = plain(token.text)
        task, numbered = _TASK.fullmatch(text), _NUMBERED.fullmatch(text)
        is_below = self._block.key is not None and token.level > self._block.level
        if is_below and not task and not (numbered and self._block.is_numbered):
            self._label = text.lower()
            return
        while self._sections and self._sections[-1].level >= token.level:
            self._sections.pop()
        if task:
            identifier = task[1].upper()
            self._block = self._open(token, task[2] or f"Task {identifier}")
            self._block.key = self._block.identifier = identifier
            self._claim(identifier, token.line)
            return
        enclosing = self._sections[-1].title if self._sections else ""
        is_metrics = _METRICS.search(text) is not None
        self._sections.append(_Section(token.level, text, _priority(text), is_metrics))
        self._block = self._open(token, numbered[2] if numbered else text)
        if numbered and not self._block.is_metrics:
            # Chapters that each count from 1 are common: a number met again gets its own key.
            key = f"objective-{numbered[1]}"
            key = key if key not in self._lines else f"{key}-l{token.line}"
            self._claim(key, token.line)
            self._block.key, self._block.identifier = key, numbered[1]
            self._block.is_numbered, self._block.section = True, enclosing

    def box(self, token: Box) -> None:
        reason = self._reason_to_skip(token)
        if reason is not None:
            self.outline.skipped.append(Skipped(token.line, token.text, reason))
            return
        while self._nesting and self._nesting[-1].indent >= token.indent:
            self._nesting.pop()
        parent = self._nesting[-1] if self._nesting else None
        item = Item(
            key=self._item_key(parent),
            line=token.line,
            indent=token.indent,
            name=titled(token.text),
            done=token.mark in "xX",
            parent=parent,
        )
        (self._block.top_items if parent is None else parent.children).append(item)
        self._block.items.append(item)
        self._nesting.append(item)

    def label(self, token: Label) -> None:
        if self._nesting and token.indent > self._nesting[-1].indent:
            self._nesting[-1].notes.append(f"{token.name}: {token.value}")
            return
        self._nesting.clear()
        self._label, self._continues = token.name, True
        self._block.fields[token.name] = token.value
        self._block.field_lines[token.name] = token.line

    def text(self, token: Text) -> None:
        if not token.text:
            self._continues = False
        elif self._nesting and token.indent > self._nesting[-1].indent:
            self._nesting[-1].notes.append(token.text)
        else:
            self._nesting.clear()
            name = self._label if self._continues and self._label else "description"
            before = self._block.fields.get(name)
            self._block.fields[name] = f"{before}\n{token.text}" if before else token.text
            self._block.field_lines.setdefault(name, token.line)

    def _reason_to_skip(self, token: Box) -> str | None:
        if self._block.is_metrics:
            return METRIC
        if self._label is not None and _METRICS.search(self._label):
            return CRITERION
        if not token.text:
            return "an empty check-box"
        if token.mark not in " xX":
            return f"unknown mark [{token.mark}]"
        return None

    def _item_key(self, parent: Item | None) -> str:
        """Counts ticked boxes too, so that a key stays when others are ticked off."""
        if parent is not None:
            return f"{parent.key}-{len(parent.children) + 1}"
        if self._block.key is not None:
            return f"{self._block.key}-{len(self._block.top_items) + 1}"
        self._loose_items += 1
        return f"item-{self._loose_items}"

    def _claim(self, key: str, line: int) -> None:
        if key in self._lines:
            raise InvalidImport(
                f"{self.source}:{line}: task {key} is there already, on line {self._lines[key]}"
            )
        self._lines[key] = line

    def _open(self, heading: Heading, title: str) -> Block:
        priorities = [section.priority for section in self._sections if section.priority]
        block = Block(
            line=heading.line,
            level=heading.level,
            name=titled(title),
            section=self._sections[-1].title if self._sections else "",
            priority=priorities[-1] if priorities else "medium",
            is_metrics=any(section.is_metrics for section in self._sections),
        )
        self.outline.blocks.append(block)
        return block


def _priority(section: str) -> str | None:
    """The priority that a section's title names, if any."""
    if match := _NUMBERED_PRIORITY.search(section):
        number = int(match[1])
        return _PRIORITIES[number] if number < len(_PRIORITIES) else "background"
    return next((priority for horizon, priority in _HORIZONS if horizon.search(section)), None)
