"""`.md`: check-lists into drafts.

* A heading `Task 1A: Title (1.5 hours)` is a task, and its check-boxes are its sub-tasks. The
  task comes after all of them: it is completed when they are. Sub-tasks do not wait for each
  other. A numbered heading, `1. Title (4 hours)`, is a task in the same way when it has
  check-boxes under it.
* `**Status**: Pending Task 1B`, or a `**Dependencies**` line that names tasks, puts the task and
  all its sub-tasks after task 1B. Other dependencies are words for people, kept as metadata.
* Check-boxes under any other heading are tasks by themselves. A nested one is a sub-task of the
  one it is indented under, which comes after it.
* Ticked boxes, tasks with a status of done, and tasks whose boxes are all ticked are left out as
  done; who waits for them waits no longer.
* Check-boxes under SUCCESS METRICS and the like say how success is measured: they are left out.
* Priority is that of the nearest section that names one: PRIORITY 0 is critical, 1 high, 2 medium,
  3 low, from 4 on background; IMMEDIATE is high, SHORT-TERM medium, MEDIUM-TERM low, LONG-TERM
  background. All others are medium.
* Owners are people and roles of the plan's world. They are kept as they are and choose no Nova.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from novawf.errors import InvalidImport
from novawf.tasks.importing.markdown import references
from novawf.tasks.importing.outline import Block, Item, Outline, outline_of
from novawf.tasks.importing.plan import (
    DONE,
    Draft,
    ImportPlan,
    Skipped,
    is_text,
    make_plan,
    numbered_lines,
)

_WAITING = re.compile(r"\b(?:pending|blocked|waiting|waits|after|depends|hold)\b", re.IGNORECASE)
_DEPENDENCIES = ("dependencies", "dependency", "depends on", "blocked by")
_OWNERS = re.compile(r"[+,&/]|\band\b")
_OWN_FIELDS = frozenset(
    {"owner", "owners", "description", "parent", "task", "section", "sub_tasks", "ongoing"}
)


def parse_checklist(text: str, source: str) -> ImportPlan:
    """The drafts of a Markdown file. Raises InvalidImport naming the line in `source`."""
    for number, line in numbered_lines(text):
        if not is_text(line) or "\0" in line:
            raise InvalidImport(f"{source}:{number}: is not UTF-8 text")
    return _Drafter(outline_of(text, source), source).plan()


class _Drafter:
    """Turns blocks into drafts, once all of them are known."""

    def __init__(self, outline: Outline, source: str) -> None:
        self.blocks = outline.blocks
        self.skipped = list(outline.skipped)
        self.source = source
        self.drafts: list[Draft] = []
        self.called: dict[str, list[Block]] = defaultdict(list)
        for block in outline.blocks:
            if block.is_task and block.identifier is not None:
                self.called[block.identifier].append(block)

    def plan(self) -> ImportPlan:
        for block in self.blocks:
            whole_is_done = block.is_task and block.is_done
            waits_for = self._waits_for(block) if block.is_task and not whole_is_done else ()
            for item in block.items:
                if item.done or whole_is_done:
                    self.skipped.append(Skipped(item.line, item.name.title, DONE))
                else:
                    self.drafts.append(_item_draft(item, block, waits_for))
            if whole_is_done:
                self.skipped.append(Skipped(block.line, block.name.title, DONE))
            elif block.is_task:
                self.drafts.append(_task_draft(block, waits_for))
        return make_plan(self.drafts, self.skipped, self.source)

    def _waits_for(self, block: Block) -> tuple[str, ...]:
        """Keys of the tasks that `block` comes after, without those that are done."""
        keys: dict[str, None] = {}
        for name in ("status", *_DEPENDENCIES):
            value = block.fields.get(name, "")
            if name == "status" and not _WAITING.search(value):
                continue
            for identifier in references(value, bare=name != "status"):
                task = self._task(identifier, block, block.field_lines[name])
                if not task.is_done and task.key is not None:
                    keys[task.key] = None
        return tuple(keys)

    def _task(self, identifier: str, block: Block, line: int) -> Block:
        """The task called `identifier`; a `Task 1` goes before a chapter 1."""
        named = self.called.get(identifier, [])
        found = [task for task in named if not task.is_numbered] or named
        if len(found) == 1:
            return found[0]
        fault = "which is there more than once" if found else "which is not there"
        raise InvalidImport(
            f"{self.source}:{line}: task {block.identifier} waits for task {identifier}, {fault}"
        )


def _item_draft(item: Item, block: Block, waits_for: tuple[str, ...]) -> Draft:
    metadata = _metadata(block)
    children = _open_keys(item.children)
    if item.parent is not None:
        metadata["parent"] = item.parent.key
    elif block.key is not None:
        metadata["parent"] = block.key
    if block.is_task:
        metadata["task"] = block.name.title
    if children:
        metadata["sub_tasks"] = len(children)
    if item.name.ongoing:
        metadata["ongoing"] = True
    return Draft(
        key=item.key,
        title=item.name.title,
        line=item.line,
        description="\n".join(item.notes),
        priority=block.priority,
        owner=_owner(block),
        estimate_s=item.name.estimate_s,
        after=(*waits_for, *children),
        metadata=metadata,
    )


def _task_draft(block: Block, waits_for: tuple[str, ...]) -> Draft:
    metadata = _metadata(block)
    for name, value in block.fields.items():
        slug = re.sub(r"\W+", "_", name)
        if value and slug not in _OWN_FIELDS:
            metadata[slug] = value
    children = _open_keys(block.top_items)
    if children:
        metadata["sub_tasks"] = len(children)
    if block.name.ongoing:
        metadata["ongoing"] = True
    return Draft(
        key=block.key or "",
        title=block.name.title,
        line=block.line,
        description=block.fields.get("description", ""),
        priority=block.priority,
        owner=_owner(block),
        estimate_s=block.name.estimate_s,
        after=(*waits_for, *children),
        metadata=metadata,
    )


def _open_keys(items: list[Item]) -> tuple[str, ...]:
    """Keys of what must be completed before the parent of `items` is: the open ones, and in place
    of a ticked one what is open below it."""
    keys: list[str] = []
    rest = items[::-1]
    while rest:
        item = rest.pop()
        if item.done:
            rest += item.children[::-1]
        else:
            keys.append(item.key)
    return tuple(keys)


def _metadata(block: Block) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if block.section:
        metadata["section"] = block.section
    owner = _owner(block)
    if owner is not None:
        metadata["owners"] = [name.strip() for name in _OWNERS.split(owner) if name.strip()]
    return metadata


def _owner(block: Block) -> str | None:
    return block.fields.get("owner") or block.fields.get("owners") or None
