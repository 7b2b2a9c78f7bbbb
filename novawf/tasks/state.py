"""The packed mutable state of a task, as the scripts keep it (`scripts/lib.lua` has the writer)."""

from __future__ import annotations

from typing import NamedTuple

from novawf.errors import CorruptState

_FIELDS = 13


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


def unpack(task_id: str, packed: str) -> TaskState:
    """Read the packed form. Raises CorruptState."""
    parts = packed.split("|")
    if len(parts) != _FIELDS:
        raise CorruptState(f"task {task_id}: its state {packed[:200]!r} has {len(parts)} fields")
    status, outcome, attempt, limit, epoch, owner, nova_epoch, target, tier, *rest = parts
    created, updated, ready, cancel = rest
    try:
        return TaskState(
            status, outcome, int(attempt), int(limit), int(epoch), owner, int(nova_epoch),
            target, int(tier), created, int(updated), int(ready), cancel != "",
        )  # fmt: skip
    except ValueError:
        raise CorruptState(f"task {task_id}: its state {packed[:200]!r} is no number") from None
