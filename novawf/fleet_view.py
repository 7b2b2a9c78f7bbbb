"""The fleet as it is now, from the store alone: what `status` shows and metrics count.

It reads and shows, and changes nothing. How a Nova's records are judged, and why it does what it
does, is `novawf.why`'s matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from novawf.clock import Clock, iso
from novawf.safety.gate import GateView
from novawf.store import keys
from novawf.store.connect import translate_errors
from novawf.tasks.protocol import Compliance
from novawf.why.evidence import (
    LISTENING_MS,
    PROGRESS_MS,
    FleetEvidence,
    NovaEvidence,
    judge_nova,
)
from novawf.why.explanation import Moment
from novawf.why.fleet import explain_fleet
from novawf.why.novas import explain_nova
from novawf.why.records import (
    fleet_evidence,
    lease_ms,
    limit_settings,
    parse_document,
    parse_fleet,
    queue_fleet,
)
from novawf.workflow.identity import ChildRecord, NovaBeat

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.store.connect import StoreAddress

__all__ = ["LISTENING_MS", "PROGRESS_MS", "document", "limits", "novas", "status"]

_NO_STORE = {"backend": "unknown", "persistence": "unknown", "loss_window_s": None}


async def status(
    redis: Redis, clock: Clock, store: StoreAddress | str = "its URL"
) -> dict[str, Any]:
    """The whole of `status --json` (architecture §6), in two round trips.

    `store` is named in errors. Raises StoreUnreachable and its like, CorruptState.
    """
    from novawf.limits.budget_view import (  # noqa: PLC0415 - pydantic costs 50 ms
        SUMMARY_READS,
        queue_summary,
        settings_of,
        summary,
    )

    with translate_errors(store):
        async with redis.pipeline(transaction=False) as pipe:
            queue_fleet(pipe)
            pipe.hmget(keys.PROTOCOL, "valid", "all")
            asked_ms = clock.now_ms()
            queue_summary(pipe, asked_ms)
            answers = await pipe.execute(raise_on_error=False)
        *replies, checked = answers[:-SUMMARY_READS]
        for reply in (*replies, checked):  # broken budgets are told, and break nothing else
            if isinstance(reply, Exception):
                raise reply
    said, records, beats = parse_fleet(replies)
    moment = Moment(clock.now_ms(), clock.wall_s())
    evidence = fleet_evidence(replies, moment.now_ms)
    rows = novas(
        records, beats, moment.now_ms, _skew_s(moment), evidence.gate.paused_novas, lease_ms(said)
    )
    return {
        "fleet": _fleet(said, evidence.gate, moment.now_ms)
        | {"why": explain_fleet(evidence, moment).short()},
        "novas": [row | {"why": _why(row["id"], evidence, moment)} for row in rows],
        "actors": [
            {
                "name": name,
                "pid": record.pid,
                "alive": record.alive,
                "restarts": record.restarts,
                "state": record.state,
                "cause": record.cause,
            }
            for name, record in evidence.actors.items()
        ],
        "tasks": dict(evidence.counts),
        # What may start now; the rest of `pending` waits.
        "queue_depth": evidence.ready + evidence.pinned,
        "limits": await _limits(redis, clock, store, said),
        "budget": summary(answers[-SUMMARY_READS:], settings_of(said), asked_ms, _skew_s(moment)),
        "protocol": Compliance.read(*checked).as_json(),
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
    return parse_document(fleet)


def novas(
    records: Mapping[str, ChildRecord],
    beats: Mapping[str, NovaBeat],
    now_ms: int,
    wall_skew_s: float,
    paused: frozenset[str] = frozenset(),
    patience_ms: int = LISTENING_MS,
) -> list[dict[str, Any]]:
    """The rows of `status`: a pure judgement of both records at `now_ms` (fleet time).

    `wall_skew_s` is wall time minus fleet time, `patience_ms` the lease of a task. What
    `judge_nova` takes for no Nova has no row.
    """
    rows = []
    for name in sorted({*beats, *records}):
        nova = judge_nova(name, records.get(name), beats.get(name), now_ms, lease_ms=patience_ms)
        if nova is not None:
            rows.append(_row(nova, wall_skew_s) | {"paused": name in paused})
    return rows


def _row(nova: NovaEvidence, wall_skew_s: float) -> dict[str, Any]:
    record, beat = nova.record, nova.beat
    state, since = "starting", ""
    if record is not None:
        since = record.since
        # Alive and silent so far: it is starting, whatever the supervisor has noted already.
        state = "starting" if record.state == "running" else record.state
    if beat is not None and (record is None or record.state in ("running", "starting")):
        state, since = beat.state, iso(beat.since_ms / 1000 + wall_skew_s)
    return {
        "id": nova.name,
        "state": state,
        "phase": beat.phase if beat else None,
        "pid": record.pid if record is not None else beat.pid if beat else None,
        "alive": nova.alive,
        "listening": nova.listening,
        "progressing": nova.progressing,
        "task": beat.task or None if beat else None,
        "title": beat.title or None if beat else None,
        "restarts": record.restarts if record is not None else 0,
        "cause": record.cause if record is not None else "",
        "cycles": beat.cycles if beat else 0,
        "since": since,
        "evidence": _evidence(beat, wall_skew_s),
    }


def _evidence(beat: NovaBeat | None, wall_skew_s: float) -> dict[str, str | None]:
    """What its health is judged by: when each sign of life was last seen, as the Nova tells it."""

    def at(ms: int) -> str | None:
        return iso(ms / 1000 + wall_skew_s) if ms else None

    if beat is None:
        return {"heartbeat": None, "cycle": None, "output": None, "record": None}
    return {
        "heartbeat": at(beat.seen_ms),
        "cycle": at(beat.cycle_ms if beat.task else beat.progress_ms),
        "output": at(beat.progress_ms if beat.task else 0),
        "record": at(beat.record_ms),
    }


def _why(name: str, evidence: FleetEvidence, moment: Moment) -> dict[str, Any]:
    return explain_nova(evidence.novas[name], evidence, moment).short()


def _skew_s(moment: Moment) -> float:
    return moment.wall_s - moment.now_ms / 1000


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
        "spares": said.get("spares", {"wanted": 0, "ready": 0}),
        "paused": gate.fleet_paused,
        "held": gate.blocking_reason(None, now_ms),
    }


async def _limits(
    redis: Redis, clock: Clock, store: StoreAddress | str, said: dict[str, Any]
) -> dict[str, Any]:
    from novawf.limits.ledger import PermitLedger  # noqa: PLC0415 - pydantic costs 50 ms

    settings = limit_settings(said)
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
