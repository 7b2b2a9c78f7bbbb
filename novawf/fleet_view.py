"""The fleet as it is now, from the store alone: what `status` shows and metrics count.

It reads and judges, and changes nothing. Two evidences are put together: what the supervisor
knows of its children (`ChildRecord`: the process) and what each Nova says of itself (`NovaBeat`:
its work). Three levels come of it (architecture §3): *alive*, the process is there; *listening*,
it answers in time; *progressing*, a cycle or the output of its work moves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, cast

from novawf.clock import Clock, iso
from novawf.errors import CorruptState
from novawf.safety.gate import GateView, parse_gate
from novawf.store import keys
from novawf.store.connect import translate_errors
from novawf.tasks.tracker import STATUSES
from novawf.workflow.identity import ChildRecord, NovaBeat

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.limits.config import LimitSettings
    from novawf.store.connect import StoreAddress

LISTENING_MS: Final = 30_000
"""Three idle waits of 10 s (`TaskSettings.idle_wait_s`): a Nova shows itself that often."""
PROGRESS_MS: Final = 60_000
"""A Nova with a task in hand that moved nothing for so long is not progressing."""

_NO_STORE = {"backend": "unknown", "persistence": "unknown", "loss_window_s": None}


async def status(
    redis: Redis, clock: Clock, store: StoreAddress | str = "its URL"
) -> dict[str, Any]:
    """The whole of `status --json` (architecture §6), in two round trips.

    `store` is named in errors. Raises StoreUnreachable and its like, CorruptState.
    """
    with translate_errors(store):
        async with redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.FLEET)
            pipe.hgetall(keys.CHILDREN)
            pipe.hgetall(keys.NOVAS)
            pipe.hgetall(keys.GATE)
            pipe.hmget(keys.TASK_COUNTS, STATUSES)
            pipe.zcard(keys.READY)
            pipe.zcard(keys.PINNED)
            fleet, children, beats, held, counts, ready, pinned = await pipe.execute()
    said = _document(fleet)
    gate = _gate(held)
    now_ms = clock.now_ms()
    records = {name: ChildRecord.from_json(text) for name, text in sorted(children.items())}
    return {
        "fleet": _fleet(said, gate, now_ms),
        "novas": novas(
            records,
            {name: NovaBeat.from_json(text) for name, text in sorted(beats.items())},
            now_ms,
            clock.wall_s() - now_ms / 1000,
            gate.paused_novas,
        ),
        "actors": [
            {
                "name": name,
                "pid": record.pid,
                "alive": record.alive,
                "restarts": record.restarts,
                "state": record.state,
                "cause": record.cause,
            }
            for name, record in records.items()
            if record.kind == "actor"
        ],
        "tasks": {
            name: max(0, int(value or 0)) for name, value in zip(STATUSES, counts, strict=True)
        },
        "queue_depth": ready + pinned,  # what may start now; the rest of `pending` waits
        "limits": await _limits(redis, clock, store, said),
    }


async def limits(
    redis: Redis, clock: Clock, store: StoreAddress | str = "its URL"
) -> dict[str, Any]:
    """What is left of the API limits, as `status` shows it, in two round trips."""
    return await _limits(redis, clock, store, await document(redis, store))


async def document(redis: Redis, store: StoreAddress | str = "its URL") -> dict[str, Any]:
    """What the running fleet has written about itself; empty where none runs.

    `state`, `started_at`, `run_id`, `pid`, `store`; and of its settings what others need to know:
    `limits`, `tasks.retries`, `executors.head_bytes`.
    """
    with translate_errors(store):
        # Clients of `store.connect` decode replies; redis-py's types cannot tell.
        fleet = cast("dict[str, str]", await redis.hgetall(keys.FLEET))
    return _document(fleet)


def novas(
    records: Mapping[str, ChildRecord],
    beats: Mapping[str, NovaBeat],
    now_ms: int,
    wall_skew_s: float,
    paused: frozenset[str] = frozenset(),
) -> list[dict[str, Any]]:
    """The rows of `status`: a pure judgement of both records at `now_ms` (fleet time).

    `wall_skew_s` is wall time minus fleet time. A Nova that no supervisor's record knows shows
    only while it is listening: what a former run left behind is no Nova.
    """
    rows = []
    for name in sorted({*beats, *(n for n, record in records.items() if record.kind == "nova")}):
        record, beat = records.get(name), beats.get(name)
        if record is not None and record.kind != "nova":
            continue
        if record is not None and beat is not None and record.alive and record.pid != beat.pid:
            beat = None  # of the process before this one
        heard = beat is not None and now_ms - beat.seen_ms <= LISTENING_MS
        if record is None and not heard:
            continue
        alive = heard if record is None else record.alive
        row = _row(name, record, beat if alive else None, now_ms, wall_skew_s)
        rows.append(row | {"paused": name in paused})
    return rows


def _row(
    name: str, record: ChildRecord | None, beat: NovaBeat | None, now_ms: int, wall_skew_s: float
) -> dict[str, Any]:
    listening = beat is not None and now_ms - beat.seen_ms <= LISTENING_MS
    progressing = listening
    if beat is not None and beat.task:
        progressing = listening and now_ms - beat.progress_ms <= PROGRESS_MS
    state, since = "starting", ""
    if record is not None:
        since = record.since
        # Alive and silent so far: it is starting, whatever the supervisor has noted already.
        state = "starting" if record.state == "running" else record.state
    if beat is not None and (record is None or record.state in ("running", "starting")):
        state, since = beat.state, iso(beat.since_ms / 1000 + wall_skew_s)
    return {
        "id": name,
        "state": state,
        "phase": beat.phase if beat else None,
        "pid": record.pid if record is not None else beat.pid if beat else None,
        "alive": beat is not None if record is None else record.alive,
        "listening": listening,
        "progressing": progressing,
        "task": beat.task or None if beat else None,
        "title": beat.title or None if beat else None,
        "restarts": record.restarts if record is not None else 0,
        "cause": record.cause if record is not None else "",
        "cycles": beat.cycles if beat else 0,
        "since": since,
    }


def _fleet(said: dict[str, Any], gate: GateView, now_ms: int) -> dict[str, Any]:
    stop = None
    if gate.stopped:
        stop = {"reason": gate.stop_reason, "by": gate.stop_by, "at": iso(gate.stop_wall_s)}
    return {
        "state": said.get("state", "unknown"),
        "started_at": said.get("started_at"),
        "run_id": said.get("run_id"),
        "pid": said.get("pid"),
        "store": said.get("store", _NO_STORE),
        "stop": stop,
        "paused": gate.fleet_paused,
        "held": gate.blocking_reason(None, now_ms),
    }


def _gate(fields: dict[str, str]) -> GateView:
    try:
        return parse_gate(fields)
    except ValueError as error:
        raise CorruptState(f"{keys.GATE} holds a field that is not a number: {error}") from None


async def _limits(
    redis: Redis, clock: Clock, store: StoreAddress | str, said: dict[str, Any]
) -> dict[str, Any]:
    from novawf.limits.ledger import PermitLedger  # noqa: PLC0415 - pydantic costs 50 ms

    settings = _limit_settings(said)
    snapshot = await PermitLedger(redis, clock, settings, store=store).snapshot()
    return {
        "requests_per_minute": settings.requests_per_minute,
        "requests_per_hour": settings.requests_per_hour,
        **{name: value for name, value in asdict(snapshot).items() if name in _SHOWN},
    }


_SHOWN = (
    "minute_left", "hour_left", "in_use", "concurrent", "next_free_in_s", "blocked_by", "granted",
    "ok", "failed", "expired", "void",
)  # fmt: skip
"""Of a `LimitSnapshot`: who waits is known to the limiter alone, so it is left out here."""


def _limit_settings(said: dict[str, Any]) -> LimitSettings:
    """The limits that the running fleet said it has; the defaults where it said nothing."""
    from novawf.limits.config import LimitSettings  # noqa: PLC0415 - see `_limits`

    limits = said.get("limits")
    known = LimitSettings.model_fields
    fields = {k: v for k, v in limits.items() if k in known} if isinstance(limits, dict) else {}
    return LimitSettings.model_validate(fields)


def _document(fleet: Mapping[str, str]) -> dict[str, Any]:
    text = fleet.get("document", "{}")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CorruptState(f"{keys.FLEET} cannot be read: {text[:200]!r} ({error})") from None
    if not isinstance(document, dict):
        raise CorruptState(f"{keys.FLEET} holds no object: {text[:200]!r}")
    return document
