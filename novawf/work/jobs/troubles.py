"""The strategic planner's reviews: failures of one cause, and deadlines that come near."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from novawf.errors import CorruptState
from novawf.store import keys
from novawf.tasks.state import Event, TaskState, unpack, unpack_history
from novawf.work.jobs.table import JobContext

log = logging.getLogger("novawf.work")

MOST: Final = 16
"""Tasks looked at."""


async def review_failures(context: JobContext, args: tuple[Any, ...]) -> dict[str, Any]:
    """`args`: the cause, and ids of tasks it was seen in. What of it stands, and what they share.

    `{"cause", "unsolved", "solved", "novas", "by_status", "tasks", "advice"}`
    """
    cause, task_ids = str(args[0]), _ids(args[1])
    found = await _load(context, task_ids)
    unsolved = [(task_id, state) for task_id, state, _ in found if state.status != "completed"]
    novas: Counter[str] = Counter()
    for _, _, events in found:
        novas.update({event.nova for event in events if event.nova})
    blocked = [task_id for task_id, state in unsolved if state.status == "blocked"]
    return {
        "cause": cause,
        "solved": len(found) - len(unsolved),
        "unsolved": len(unsolved),
        "by_status": dict(Counter(state.status for _, state in unsolved)),
        "novas": dict(sorted(novas.items())),
        "tasks": [
            {
                "task_id": task_id,
                "status": state.status,
                "outcome": state.outcome or None,
                "attempts": state.attempt,
            }
            for task_id, state in unsolved
        ],
        "advice": _advice(blocked, novas, len(found)),
    }


async def review_deadlines(context: JobContext, args: tuple[Any, ...]) -> dict[str, Any]:
    """`args`: ids of tasks whose deadline is near. `{"late": [task, left, why], "begun"}`."""
    found = await _load(context, _ids(args[0]))
    waiting = [(task_id, state) for task_id, state, _ in found if not state.attempt]
    now_ms = context.clock.now_ms()
    late = []
    for task_id, state in waiting:
        left_s = None if state.deadline_ms is None else (state.deadline_ms - now_ms) / 1000
        why = await _why(context, task_id, state)
        late.append({"task_id": task_id, "left_s": left_s, "why": why})
        log.warning("task %s has not begun and is due in %s s: %s", task_id, left_s, why)
    return {"late": late, "begun": len(found) - len(waiting)}


def _advice(blocked: Sequence[str], novas: Counter[str], tasks: int) -> list[str]:
    advice = []
    if len(novas) == 1 and tasks > 1:
        advice.append(f"all of it happened on {next(iter(novas))}: look at that Nova first")
    if blocked:
        first = blocked[0]
        advice.append(f"see `novawf task {first}`; once it is mended, `novawf retry {first}`")
    return advice or ["nothing is left to do: what failed was dealt with"]


async def _why(context: JobContext, task_id: str, state: TaskState) -> str:
    if state.outcome == "awaiting_approval":
        return f"it awaits approval: `novawf approve {task_id}`"
    if state.status == "blocked":
        return f"it is blocked: {state.outcome}"
    async with context.client.pipeline(transaction=False) as pipe:
        pipe.hget(keys.WAITING, task_id)
        pipe.zscore(keys.DELAYED, task_id)
        pipe.hget(keys.NOVAS, state.target or "-")
        left, due_ms, beat = await pipe.execute()
    if left:
        return f"it comes after {left} tasks that are not completed"
    if due_ms:
        return f"it may start in {max(0.0, (due_ms - context.clock.now_ms()) / 1000):.0f} s"
    if state.target:
        return f"it is for {state.target} alone, {_doing(beat)}"
    return "it is ready: the next Nova that is free takes it"


def _doing(beat: str | None) -> str:
    try:
        task = json.loads(beat)["task"] if beat else None
    except (ValueError, KeyError, TypeError):
        task = None
    if beat is None:
        return "which does not run"
    return f"which is busy with {task}" if task else "which is idle"


def _ids(value: Any) -> list[str]:
    return [str(task_id) for task_id in value][:MOST]


async def _load(
    context: JobContext, task_ids: Sequence[str]
) -> list[tuple[str, TaskState, list[Event]]]:
    """Id, state and history of those that are still there."""
    if not task_ids:
        return []
    packed = await context.client.hmget(keys.TASK_STATE, list(task_ids))
    found = []
    for task_id, text in zip(task_ids, packed, strict=True):
        if text is None:
            continue
        try:
            found.append((task_id, unpack(task_id, text), unpack_history(text)))
        except CorruptState as error:
            log.warning("%s", error)
    return found
