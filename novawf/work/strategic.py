"""Strategic planner: work that follows from evidence in the store, never from thin air.

Two kinds of evidence: failures that piled up by one cause, as dead letters or as attempts that are
repeated, and tasks that have not begun although their deadline is near. Each leads to a built-in
review, whose result says what is the matter and what people can do; nothing is changed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Final

from novawf import ids
from novawf.errors import CorruptState
from novawf.store import keys
from novawf.tasks.model import Priority, TaskSpec, WorkType
from novawf.tasks.state import TaskState, unpack
from novawf.work.evidence import Failures, Record, cause_of, failures_by_cause, newest_records
from novawf.work.item import WANTED, Look, WorkItem
from novawf.work.jobs.table import DEADLINE_REVIEW, FAILURE_REVIEW

NAME: Final = "strategic"

PILE: Final = 5
"""So many failures of one cause are worth a review."""

RECORDS_READ: Final = 40
"""Newest records read of each of three streams; later only what has come since."""

FAILURES_MS: Final = 86_400_000
"""Older failures are no news."""

REVIEW_SLOT_MS: Final = 21_600_000
"""One cause is reviewed at most four times a day."""

NEAR_MS: Final = 900_000
"""A deadline this near is close for a task that has not begun."""

CHECKED: Final = 16
"""Tasks looked at to see whether the evidence still holds."""


class StrategicPlanner:
    """Reads the newest records of this Nova and of `fleet`, and the nearest deadlines.

    What it read it remembers, so that an idle fleet's records are not read again and again.
    """

    name = NAME

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}
        self._records: dict[str, deque[Record]] = {}

    async def discover(self, look: Look) -> Sequence[WorkItem]:
        """See `Discoverer.discover`. Four round trips at most."""
        failures, deadlines = await asyncio.gather(self._failures(look), self._deadlines(look))
        return [*failures, *deadlines]

    async def _failures(self, look: Look) -> list[WorkItem]:
        streams = (keys.completed(look.nova), keys.completed(ids.FLEET), keys.progress(look.nova))
        found = await newest_records(look.client, streams, RECORDS_READ, self._seen)
        for stream, newest in found.items():
            kept = self._records.setdefault(stream, deque(maxlen=RECORDS_READ))
            kept.extend(record for record in reversed(newest) if cause_of(record) is not None)
            if newest:
                self._seen[stream] = newest[0].entry_id
        records = [record for kept in self._records.values() for record in kept]
        since_ms = round(look.wall_s * 1000) - FAILURES_MS
        items = []
        for group in failures_by_cause(records, since_ms)[:WANTED]:
            if group.records >= PILE and await self._still_holds(look, group):
                items.append(self._review(look, group))
        return items

    async def _still_holds(self, look: Look, group: Failures) -> bool:
        """Whether what failed is not done by now: else somebody has dealt with it."""
        task_ids = group.task_ids[:CHECKED]
        states = await _states(look, task_ids)
        unsolved = [state for state in states if state and state.status != "completed"]
        return 2 * len(unsolved) > len(task_ids)

    def _review(self, look: Look, group: Failures) -> WorkItem:
        title = f"Review {group.records} failures: {group.cause}"
        digest = hashlib.sha256(group.cause.encode(errors="replace")).hexdigest()[:16]
        spec = TaskSpec(
            title=title[:500],
            description="Failures of one cause piled up; the result lists them and what is common.",
            job=FAILURE_REVIEW,
            args=[group.cause, list(group.task_ids[:CHECKED])],
            priority=Priority.LOW,
            work_type=WorkType.STRATEGIC,
            retries=0,
        )
        key = f"strategic:failures:{digest}:{look.now_ms // REVIEW_SLOT_MS}"
        return WorkItem(key, title, Priority.LOW, look.now_ms, self.name, spec)

    async def _deadlines(self, look: Look) -> list[WorkItem]:
        task_ids = await look.client.zrangebyscore(
            keys.DEADLINES, look.now_ms, look.now_ms + NEAR_MS, 0, CHECKED
        )
        if not task_ids:
            return []
        states = await _states(look, task_ids)
        late = [
            task_id
            for task_id, state in zip(task_ids, states, strict=True)
            if state is not None and state.status in ("pending", "blocked") and not state.attempt
        ]
        if not late:
            return []
        title = f"Look into {len(late)} tasks that have not begun and are due soon"
        spec = TaskSpec(
            title=title,
            description="Their deadlines are near; the result says what each one waits for.",
            job=DEADLINE_REVIEW,
            args=[late],
            priority=Priority.HIGH,
            work_type=WorkType.STRATEGIC,
            retries=0,
        )
        key = f"strategic:deadlines:{late[0]}:{look.now_ms // NEAR_MS}"
        return [WorkItem(key, title, Priority.HIGH, look.now_ms, self.name, spec)]


async def _states(look: Look, task_ids: Sequence[str]) -> list[TaskState | None]:
    """Their states, in order; None for what is gone or cannot be read."""
    packed = await look.client.hmget(keys.TASK_STATE, list(task_ids))
    found: list[TaskState | None] = []
    for task_id, text in zip(task_ids, packed, strict=True):
        try:
            found.append(None if text is None else unpack(task_id, text))
        except CorruptState:
            found.append(None)
    return found
