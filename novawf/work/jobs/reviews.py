"""Reviews of how the fleet works: its workflow, its coordination, the patterns in what it did.

They read counters, heartbeats and the newest protocol records, a bounded number of each, and draw
conclusions by plain rules. Private insights are not among what they read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from novawf import ids
from novawf.clock import iso
from novawf.errors import CorruptState
from novawf.store import keys
from novawf.tasks.state import unpack
from novawf.telemetry.buckets import LATENCY_US
from novawf.work.evidence import Record, failures_by_cause, newest_records
from novawf.work.jobs.table import JobContext

RECORDS: Final = 30
"""Newest ended records read of each Nova."""

NOVAS: Final = 50
"""Novas whose records are read."""

WAITING: Final = 64
"""Tasks looked at that wait for others."""

VERDICTS: Final = ("completed", "retry", "blocked", "requeue")
SLOW_CLAIM_MS: Final = 100.0
BUSY_DEPTH: Final = 10


async def review_workflow(context: JobContext, args: tuple[Any, ...]) -> dict[str, Any]:
    """`{"novas": [state, time in it, cycles], "attempts", "latency_ms", "findings"}`."""
    async with context.client.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.NOVAS)
        pipe.hgetall(keys.TASK_COUNTS)
        beats, counts = await pipe.execute()
    now_ms = context.clock.now_ms()
    novas = [_nova_row(name, beat, now_ms) for name, beat in sorted(_beats(beats).items())]
    attempts = {verdict: _count(counts, f"ended:{verdict}") for verdict in VERDICTS}
    latency = {name: percentiles(counts, name) for name in ("duration", "claim", "wake")}
    return {
        "novas": novas,
        "attempts": attempts,
        "latency_ms": latency,
        "findings": _workflow_findings(novas, attempts, latency),
    }


async def review_coordination(context: JobContext, args: tuple[Any, ...]) -> dict[str, Any]:
    """`{"idle", "busy", "ready", "pinned": {nova: tasks}, "waits": [task, left], "blocked":
    {outcome: recent}, "findings"}`."""
    async with context.client.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.NOVAS)
        pipe.zcard(keys.READY)
        pipe.zrange(keys.PINNED, 0, WAITING - 1)
        pipe.hlen(keys.WAITING)
        pipe.hscan(keys.WAITING, 0, count=WAITING)
        beats, ready, pinned, waiting, (_, waits) = await pipe.execute()
    known = _beats(beats)
    idle = sorted(name for name, beat in known.items() if not beat.get("task"))
    ended = await _ended(context, sorted(known))
    outcomes = Counter(
        record.fields.get("outcome") or "unknown"
        for record in ended
        if record.fields.get("status") == "blocked"
    )
    pinned_to = Counter(member.partition("|")[0] for member in pinned)
    return {
        "idle": idle,
        "busy": sorted(set(known) - set(idle)),
        "ready": ready,
        "pinned": dict(sorted(pinned_to.items())),
        "waiting_for_others": waiting,
        "waits": await _waits(context, waits),
        "blocked": dict(sorted(outcomes.items())),
        "findings": _coordination_findings(idle, known, ready, pinned_to),
    }


async def find_patterns(context: JobContext, args: tuple[Any, ...]) -> dict[str, Any]:
    """`{"records", "by_nova", "by_priority", "busiest_hours", "repeated", "failures"}` of the
    newest ended tasks."""
    novas = sorted(await context.client.hkeys(keys.NOVAS))
    ended = await _ended(context, novas)
    titles = Counter(record.fields.get("title", "")[:100] for record in ended)
    hours = Counter(iso(record.at_ms / 1000)[11:13] for record in ended)
    return {
        "records": len(ended),
        "by_nova": _sorted(Counter(record.fields.get("assignee", "") for record in ended)),
        "by_priority": _sorted(Counter(record.fields.get("priority", "") for record in ended)),
        "busiest_hours_utc": dict(hours.most_common(3)),
        "repeated": {title: count for title, count in titles.most_common(5) if count > 1},
        "failures": {
            group.cause: group.records for group in failures_by_cause(ended, since_ms=0)[:5]
        },
    }


async def _ended(context: JobContext, novas: list[str]) -> list[Record]:
    streams = [keys.completed(name) for name in (ids.FLEET, *novas[:NOVAS])]
    found = await newest_records(context.client, streams, RECORDS)
    return [record for records in found.values() for record in records]


async def _waits(context: JobContext, waits: Mapping[str, str]) -> list[dict[str, Any]]:
    """Some of those that wait for others, by how many they wait for."""
    shown = sorted(waits.items(), key=lambda item: (-int(item[1] or 0), item[0]))[:10]
    if not shown:
        return []
    packed = await context.client.hmget(keys.TASK_STATE, [task_id for task_id, _ in shown])
    rows = []
    for (task_id, left), text in zip(shown, packed, strict=True):
        try:
            status = None if text is None else unpack(task_id, text).status
        except CorruptState:
            status = None
        rows.append({"task_id": task_id, "waits_for": int(left or 0), "status": status})
    return rows


def percentiles(counts: Mapping[str, str], name: str) -> dict[str, float | None]:
    """p50 and p95 in ms, as upper bounds of their buckets; None where nothing was measured."""
    buckets = [_count(counts, f"{name}:{number}") for number in range(len(LATENCY_US) + 1)]
    return {f"p{share}": _percentile_ms(buckets, share / 100) for share in (50, 95)}


def _percentile_ms(buckets: list[int], share: float) -> float | None:
    left = sum(buckets) * share
    if not left:
        return None
    for number, count in enumerate(buckets):
        left -= count
        if left <= 0 and count:
            return LATENCY_US[min(number, len(LATENCY_US) - 1)] / 1000
    return LATENCY_US[-1] / 1000


def _nova_row(name: str, beat: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    return {
        "nova": name,
        "state": beat.get("state"),
        "in_state_s": round((now_ms - beat["since_ms"]) / 1000, 1) if "since_ms" in beat else None,
        "seen_s_ago": round((now_ms - beat["seen_ms"]) / 1000, 1) if "seen_ms" in beat else None,
        "cycles": beat.get("cycles", 0),
    }


def _workflow_findings(
    novas: list[dict[str, Any]],
    attempts: Mapping[str, int],
    latency: Mapping[str, Mapping[str, float | None]],
) -> list[str]:
    found = [
        f"{row['nova']} is in {row['state']} for {row['in_state_s']:.0f} s"
        for row in novas
        if row["state"] in ("error_recovery", "safety_pause") and (row["in_state_s"] or 0) > 60
    ]
    ended = sum(attempts.values())
    if ended >= 20 and attempts["retry"] > ended / 4:
        found.append(f"{attempts['retry']} of {ended} attempts had to be repeated")
    claim_ms = latency["claim"]["p95"]
    if claim_ms is not None and claim_ms > SLOW_CLAIM_MS:
        found.append(f"one claim in twenty takes over {SLOW_CLAIM_MS:g} ms: look at the store")
    return found


def _coordination_findings(
    idle: list[str], known: Mapping[str, Any], ready: int, pinned: Mapping[str, int]
) -> list[str]:
    found = [
        f"{count} tasks wait for {nova} alone, which does not run"
        for nova, count in sorted(pinned.items())
        if nova not in known
    ]
    if idle:
        found += [
            f"{count} tasks wait for {nova}, which is busy, while {len(idle)} Novas are idle"
            for nova, count in sorted(pinned.items())
            if nova in known and nova not in idle
        ]
    elif ready >= BUSY_DEPTH:
        found.append(f"{ready} tasks wait and every Nova is busy: more Novas would help")
    return found


def _beats(replies: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    found = {}
    for name, text in replies.items():
        try:
            beat = json.loads(text)
        except ValueError:
            continue
        if isinstance(beat, dict):
            found[name] = beat
    return found


def _sorted(counted: Counter[str]) -> dict[str, int]:
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:10])


def _count(counts: Mapping[str, str], field: str) -> int:
    text = counts.get(field) or "0"
    return int(text) if text.lstrip("-").isdigit() else 0
