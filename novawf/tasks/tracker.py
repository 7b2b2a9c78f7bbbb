"""Reading tasks: one with its history, lists, and counts. Nothing here changes anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from novawf.clock import Clock, iso
from novawf.errors import NotFound
from novawf.store import keys
from novawf.tasks.state import Event, unpack, unpack_history

if TYPE_CHECKING:
    from redis.asyncio import Redis

STATUSES = ("pending", "in_progress", "completed", "blocked")


class TaskTracker:
    """Answers questions about tasks as JSON-ready dictionaries (architecture §6)."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self.redis: Any = redis  # replies are str (decode_responses); redis-py's types say bytes
        self.clock = clock

    async def task(self, task_id: str) -> dict[str, Any]:
        """The whole of one task: protocol fields, attempts, owner, output, history.

        Raises NotFound.
        """
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.hget(keys.TASK_STATE, task_id)
            pipe.hget(keys.TASK_SPEC, task_id)
            pipe.hget(keys.TASK_RESULT, task_id)
            pipe.hget(keys.WAITING, task_id)
            packed, spec, result, waiting = await pipe.execute()
        if packed is None or spec is None:
            raise NotFound(f"there is no task {task_id}")
        return self.view(task_id, packed, spec, result, waiting)

    def view(
        self, task_id: str, packed: str, spec: str, result: str | None, waiting: str | None
    ) -> dict[str, Any]:
        """The same from what the store has of the task: for whoever reads many at once."""
        view = self._row(task_id, packed, json.loads(spec))
        events = unpack_history(packed)
        ended = json.loads(result) if result else _quiet_result(events)
        if ended.get("nova") and view["status"] != "in_progress":
            view["assignee"] = ended["nova"]  # who did it, once somebody has
        view["results"] = ended.pop("results", None)
        view["exit_code"] = ended.pop("exit_code", None)
        view["stdout_tail"] = ended.pop("stdout_tail", "")
        view["accept"] = ended.pop("accept", None)
        view["last_attempt"] = ended
        view["waiting_for"] = int(waiting or 0)
        view["history"] = [self._event(event) for event in events]
        view["completed_at"] = view["updated_at"] if view["status"] == "completed" else None
        return view

    async def list(
        self, *, status: str | None = None, nova: str | None = None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Tasks in order of creation. `nova` selects by owner or target."""
        rows: list[dict[str, Any]] = []
        start, page = 0, 1000
        while task_ids := await self.redis.zrange(keys.TASK_ORDER, start, start + page - 1):
            start += page
            states = await self.redis.hmget(keys.TASK_STATE, task_ids)
            specs = await self.redis.hmget(keys.TASK_SPEC, task_ids)
            for task_id, packed, spec in zip(task_ids, states, specs, strict=True):
                if packed is None or spec is None:
                    continue
                row = self._row(task_id, packed, json.loads(spec))
                if status is not None and row["status"] != status:
                    continue
                if nova is not None and nova not in (row["owner"], row["nova"]):
                    continue
                rows.append(row)
                if limit is not None and len(rows) >= limit:
                    return rows
        return rows

    async def counts(self) -> dict[str, int]:
        """How many tasks have each status."""
        values = await self.redis.hmget(keys.TASK_COUNTS, STATUSES)
        return {name: max(0, int(value or 0)) for name, value in zip(STATUSES, values, strict=True)}

    async def queue_depth(self) -> int:
        """How many tasks may start now."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.zcard(keys.READY)
            pipe.zcard(keys.PINNED)
            return sum(await pipe.execute())

    def _row(self, task_id: str, packed: str, spec: dict[str, Any]) -> dict[str, Any]:
        state = unpack(task_id, packed)
        return {
            "task_id": task_id,
            "title": spec["title"],
            "description": spec.get("description", ""),
            "status": state.status,
            "outcome": state.outcome or None,
            "priority": spec.get("priority", "medium"),
            "assignee": state.owner or state.target or "fleet",
            "created_at": state.created,
            "updated_at": self._wall(state.updated_ms),
            "attempts": state.attempt,
            "attempts_allowed": state.limit,
            "owner": state.owner or None,
            "epoch": state.epoch,
            "nova": state.target or None,
            "executor": spec.get("executor") or _implied(spec),
            "after": spec.get("after", []),
            "deadline": spec.get("deadline"),
            "work_type": spec.get("work_type", "explicit"),
            "metadata": spec.get("metadata", {}),
            "cancelling": state.cancel,
        }

    def _event(self, event: Event) -> dict[str, Any]:
        return {
            "at": self._wall(event.at_ms),
            "event": event.event,
            "nova": event.nova or None,
            "attempt": event.attempt,
            "detail": event.detail,
        }

    def _wall(self, fleet_ms: int) -> str:
        """Fleet time as a wall time for people: they differ by what the wall clock jumped."""
        skew_s = self.clock.wall_s() - self.clock.now_ms() / 1000
        return iso(fleet_ms / 1000 + skew_s)


def _quiet_result(events: Sequence[Event]) -> dict[str, Any]:
    """The result of a task that had nothing to say: only who did it, which its history tells."""
    for event in reversed(events):
        if event.event == "completed":
            return {"nova": event.nova}
    return {}


def _implied(spec: dict[str, Any]) -> str | None:
    if spec.get("argv"):
        return "command"
    if spec.get("callable"):
        return "python"
    return "maintenance" if spec.get("job") else None
