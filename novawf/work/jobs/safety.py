"""The safety self-check: gate, mechanisms, limits, leases and counts agree with each other.

It reads and reports; what it finds is for people, and the orchestrator's own mechanisms do not
depend on it. The store moves on between two reads, so what looks wrong is looked at twice.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from redis.exceptions import ResponseError

from novawf.errors import CorruptState
from novawf.safety.assembly import MECHANISMS
from novawf.safety.gate import Gate
from novawf.safety.memory import Remembered
from novawf.store import keys
from novawf.tasks.state import unpack
from novawf.work.jobs.table import JobContext

SAMPLE: Final = 64
"""Tasks looked at in each set."""

LOOK_AGAIN_S: Final = 0.05
"""Pause before a finding is confirmed: a claim or a finish is over by then."""

LEASE_LATE_MS: Final = 60_000
"""The supervisor frees silent owners' tasks within seconds; after a minute something is wrong."""


async def safety_check(context: JobContext, args: tuple[Any, ...]) -> dict[str, Any]:
    """`{"ok", "checks", "findings": [sentence], "rows": [{check, ok, found}], …figures}`."""
    first, _ = await _look(context)
    if any(first.values()):
        await asyncio.sleep(LOOK_AGAIN_S)
    again, figures = await _look(context)
    rows: list[dict[str, Any]] = []
    for check, found in again.items():
        confirmed = sorted(set(found) & set(first[check]))
        rows.append({"check": check, "ok": not confirmed, "found": confirmed})
    findings = sorted(finding for row in rows for finding in row["found"])
    return {
        "ok": not findings,
        "checks": len(rows),
        "findings": findings,
        "rows": rows,
        **figures,
    }


async def _look(context: JobContext) -> tuple[dict[str, list[str]], dict[str, Any]]:
    findings: dict[str, list[str]] = {}
    figures: dict[str, Any] = {}
    for name, check in _CHECKS.items():
        findings[name], seen = await check(context)
        figures |= seen
    return findings, figures


async def _gate(context: JobContext) -> tuple[list[str], dict[str, Any]]:
    """This runs inside a task, so the gate let it start: by now a verdict has to stand."""
    try:
        gate = await Gate(context.redis, context.clock).read()
    except CorruptState as error:
        return [str(error)], {"verdict": None}
    now_ms = context.clock.now_ms()
    found = []
    if gate.valid_until_ms < now_ms:
        found.append("the safety verdict is not renewed: nothing can start")
    if gate.checked_at_ms > now_ms + 1000:
        found.append("the safety verdict was given in the future: clocks disagree")
    if gate.is_safe and gate.valid_until_ms - now_ms > 600_000:
        found.append("the safety verdict holds for over ten minutes: it would fail open")
    return found, {
        "verdict": "safe" if gate.is_safe else f"unsafe: {gate.reason}",
        "verdict_valid_s": round((gate.valid_until_ms - now_ms) / 1000, 3),
        "stopped": gate.stopped,
        "paused": sorted(gate.paused_novas) + (["fleet"] if gate.fleet_paused else []),
    }


async def _mechanisms(context: JobContext) -> tuple[list[str], dict[str, Any]]:
    """Each of the five remembers what can be read, and has said something."""
    try:
        fields = await context.client.hgetall(keys.SAFETY_STATE)
    except ResponseError as error:
        return [f"{keys.SAFETY_STATE}: {error}; `novawf safety reset all`"], {}
    found, said = [], {}
    for name in MECHANISMS:
        try:
            verdict = Remembered.parse(name, fields.get(name)).verdict
        except CorruptState as error:
            found.append(str(error))
            continue
        if verdict is None:
            found.append(f"the safety mechanism {name} has said nothing yet")
        else:
            said[name] = verdict.recommended_action.word
    return found, {"mechanisms": said}


async def _limits(context: JobContext) -> tuple[list[str], dict[str, Any]]:
    """Windows as they are in the store, against the limits that the running fleet has."""
    now_ms = context.clock.now_ms()
    async with context.client.pipeline(transaction=True) as pipe:
        pipe.zcount(keys.LIMIT_GRANTS, now_ms - 60_000, "+inf")
        pipe.zcount(keys.LIMIT_GRANTS, now_ms - 3_600_000, "+inf")
        pipe.zcount(keys.LIMIT_LEASES, now_ms, "+inf")
        pipe.hget(keys.FLEET, "document")
        minute, hour, in_flight, document = await pipe.execute()
    seen = {"granted_minute": minute, "granted_hour": hour, "requests_in_flight": in_flight}
    limits = _limits_of(document)
    found = []
    for count, name, words in (
        (minute, "requests_per_minute", "requests in the last minute"),
        (hour, "requests_per_hour", "requests in the last hour"),
        (in_flight, "concurrent", "requests at once"),
    ):
        limit = limits.get(name)
        if isinstance(limit, int) and count > limit:
            found.append(f"{words}: {count} permits were given, {limit} are allowed")
    return found, seen


def _limits_of(document: str | None) -> dict[str, Any]:
    try:
        limits = json.loads(document or "{}").get("limits", {})
    except (ValueError, AttributeError):
        return {}
    return limits if isinstance(limits, dict) else {}


async def _leases(context: JobContext) -> tuple[list[str], dict[str, Any]]:
    """Each leased task is in somebody's hands, and no lease ran out long ago."""
    leases = await context.client.zrange(keys.LEASES, 0, SAMPLE - 1, withscores=True)
    states = await _states(context, [task_id for task_id, _ in leases])
    late_ms = context.clock.now_ms() - LEASE_LATE_MS
    found = []
    for task_id, expiry_ms in leases:
        status = states.get(task_id)
        if status != "in_progress":
            found.append(f"task {task_id} has a lease and is {status or 'unknown'}")
        elif expiry_ms < late_ms:
            found.append(f"task {task_id}: its lease ran out and nobody freed it")
    return found, {"leases_checked": len(leases)}


async def _ready(context: JobContext) -> tuple[list[str], dict[str, Any]]:
    """Each task at the head of the queue is pending."""
    task_ids = await context.client.zrange(keys.READY, 0, SAMPLE - 1)
    states = await _states(context, task_ids)
    found = [
        f"task {task_id} is queued to start and is {states.get(task_id) or 'unknown'}"
        for task_id in task_ids
        if states.get(task_id) != "pending"
    ]
    return found, {"ready_checked": len(task_ids)}


async def _counts(context: JobContext) -> tuple[list[str], dict[str, Any]]:
    """The counters agree with the sets they count."""
    async with context.client.pipeline(transaction=True) as pipe:
        pipe.hmget(keys.TASK_COUNTS, "pending", "in_progress", "completed", "blocked")
        pipe.zcard(keys.LEASES)
        counted, leases = await pipe.execute()
    pending, in_progress, completed, blocked = (int(count or 0) for count in counted)
    found = []
    if in_progress != leases:
        found.append(f"{in_progress} tasks are counted as in progress, and {leases} have a lease")
    if min(pending, in_progress, completed, blocked) < 0:
        found.append("a count of tasks is below zero")
    return found, {"pending": pending, "in_progress": in_progress, "blocked": blocked}


async def _states(context: JobContext, task_ids: list[str]) -> dict[str, str | None]:
    if not task_ids:
        return {}
    packed = await context.client.hmget(keys.TASK_STATE, task_ids)
    found: dict[str, str | None] = {}
    for task_id, text in zip(task_ids, packed, strict=True):
        try:
            found[task_id] = None if text is None else unpack(task_id, text).status
        except CorruptState:
            found[task_id] = "unreadable"
    return found


_CHECKS: Final = {
    "gate": _gate,
    "mechanisms": _mechanisms,
    "limits": _limits,
    "leases": _leases,
    "queue": _ready,
    "counts": _counts,
}
"""What is looked at, by its name in the table that people see."""
