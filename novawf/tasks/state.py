"""The packed mutable state of a task, as the scripts keep it (`scripts/lib.lua` has the writer).

The first line is the state, the lines after it are the history, one event each.
"""

from __future__ import annotations

from typing import NamedTuple

from novawf.errors import CorruptState

_FIELDS = 16


class TaskState(NamedTuple):
    """One task's state. Times are fleet ms, but `created` is ISO 8601."""

    status: str
    outcome: str
    attempt: int
    limit: int
    epoch: int
    owner: str
    nova_epoch: int
    target: str
    tier_ms: int
    created: str
    updated_ms: int
    ready_ms: int
    cancel: bool
    deadline_ms: int | None = None
    dependents: bool = False
    """Whether another task has waited for this one."""
    approved: bool = False


class Event(NamedTuple):
    """One line of a task's history. `at_ms` is fleet time."""

    at_ms: int
    event: str
    nova: str
    attempt: int
    detail: str


def unpack(task_id: str, packed: str) -> TaskState:
    """Read the packed form. Raises CorruptState."""
    parts = packed.split("\n", 1)[0].split("|")
    if len(parts) != _FIELDS:
        raise CorruptState(f"task {task_id}: its state {packed[:200]!r} has {len(parts)} fields")
    status, outcome, attempt, limit, epoch, owner, nova_epoch, target, tier, *rest = parts
    created, updated, ready, cancel, deadline, dependents, approved = rest
    try:
        return TaskState(
            status, outcome, int(attempt), int(limit), int(epoch), owner, int(nova_epoch),
            target, int(tier), created, int(updated), int(ready), cancel != "",
            int(deadline) if deadline else None, dependents != "",
            approved != "",
        )  # fmt: skip
    except ValueError:
        raise CorruptState(f"task {task_id}: its state {packed[:200]!r} is no number") from None


def unpack_history(packed: str) -> list[Event]:
    """The events behind the state, oldest first; a line that cannot be read is left out."""
    events = []
    for line in packed.split("\n")[1:]:
        parts = line.split("|", 4)
        if len(parts) == 5 and parts[0].isdigit() and parts[3].isdigit():
            at_ms, event, nova, attempt, detail = parts
            events.append(Event(int(at_ms), event, nova, int(attempt), detail))
    return events
