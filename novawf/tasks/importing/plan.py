"""What every parser produces: drafts in dependency order, and what was left out and why."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from novawf.errors import InvalidImport

DONE = "done"
"""Reason of what was left out because the file says it is done already."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A task to be: what its source says, not validated yet."""

    key: str
    """Names the draft within its file; the same at each import while the file keeps its order."""
    title: str
    line: int
    """Line of the file, from 1."""
    description: str = ""
    priority: str = "medium"
    owner: str | None = None
    """Who the source says owns it: people or roles, never a Nova."""
    estimate_s: int | None = None
    """Estimated duration in seconds."""
    after: tuple[str, ...] = ()
    """Keys of the drafts that must be completed before."""
    metadata: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    """Raw fields of a task, from a `.jsonl` line; empty for other formats."""


class Skipped(NamedTuple):
    """One line that looks like a task and was left out."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """The drafts, each after all that it waits for, and what was left out, by line."""

    drafts: tuple[Draft, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def done(self) -> int:
        """How many were left out as done already."""
        return sum(item.reason == DONE for item in self.skipped)


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end). Lines end in LF or CR LF and in nothing else: a
    JSON string may hold the other characters that `str.splitlines` breaks at."""
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, line.removesuffix("\r")


def is_text(line: str) -> bool:
    """Whether `line` came from valid UTF-8."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


def make_plan(drafts: Sequence[Draft], skipped: Sequence[Skipped], source: str) -> ImportPlan:
    """Put `drafts` in dependency order, the order of the file otherwise.

    Raises InvalidImport, naming the line in `source`, when a key is used twice, or a draft waits
    for one that is not there or for itself.
    """
    keys: set[str] = set()
    for draft in drafts:
        if draft.key in keys:
            raise InvalidImport(f"{source}:{draft.line}: key {draft.key} is used twice")
        keys.add(draft.key)
    dependents: dict[str, list[int]] = {}
    waiting: list[int] = []
    for index, draft in enumerate(drafts):
        for other in draft.after:
            if other not in keys:
                raise InvalidImport(
                    f"{source}:{draft.line}: {draft.key} waits for {other}, which is not there"
                )
            dependents.setdefault(other, []).append(index)
        waiting.append(len(draft.after))
    ready = [index for index, count in enumerate(waiting) if count == 0]
    ordered: list[Draft] = []
    while ready:
        draft = drafts[heapq.heappop(ready)]
        ordered.append(draft)
        for index in dependents.get(draft.key, ()):
            waiting[index] -= 1
            if waiting[index] == 0:
                heapq.heappush(ready, index)
    if len(ordered) < len(drafts):
        raise _cycle([draft for draft, count in zip(drafts, waiting, strict=True) if count], source)
    return ImportPlan(tuple(ordered), tuple(sorted(skipped)))


def _cycle(stuck: Sequence[Draft], source: str) -> InvalidImport:
    """Name one cycle among drafts of which each waits for another of them."""
    by_key = {draft.key: draft for draft in stuck}
    trail: dict[str, None] = {}
    key = stuck[0].key
    while key not in trail:
        trail[key] = None
        key = next(other for other in by_key[key].after if other in by_key)
    keys = list(trail)
    circle = [*keys[keys.index(key) :], key]
    return InvalidImport(
        f"{source}:{by_key[key].line}: {key} waits for itself: {' after '.join(circle)}"
    )
