"""The fleet as it is now, from the store alone: what `status` shows and metrics count.

It reads and shows, and changes nothing. How a Nova's records are judged, and why it does what it
does, is `novawf.why`'s matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from novawf.clock import Clock, iso
from novawf.errors import CorruptState
from novawf.safety.gate import GateView
from novawf.safety.view import safety_view
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
    read_gate,
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
            queue_safety(pipe)
            asked_ms = clock.now_ms()
            queue_summary(pipe, asked_ms)
            answers = await pipe.execute(raise_on_error=False)
        *replies, checked, memories, counts = answers[:-SUMMARY_READS]
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
        "fleet": _fleet(said, evidence, moment.now_ms)
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
        "safety": _safety(evidence.gate, memories, counts, moment),
    }


async def safety(
    redis: Redis, clock: Clock, store: StoreAddress | str = "its URL"
) -> dict[str, Any]:
    """What the safety mechanisms said last, in one round trip."""
    with translate_errors(store):
        async with redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.GATE)
            queue_safety(pipe)
            gate, memories, counts = await pipe.execute(raise_on_error=False)
    if isinstance(gate, Exception):
        raise CorruptState(f"{keys.GATE}: {gate}; `novawf safety reset gate`")
    return _safety(read_gate(gate), memories, counts, Moment(clock.now_ms(), clock.wall_s()))


def queue_safety(pipe: Any) -> None:
    """Put the reads behind the view of the mechanisms into a pipeline."""
    pipe.hgetall(keys.SAFETY_STATE)
    pipe.hgetall(keys.SAFETY_COUNTS)


def _safety(gate: GateView, memories: Any, counts: Any, moment: Moment) -> dict[str, Any]:
    """What cannot be read is shown as nothing: the gate's reason says what is the matter."""
    return safety_view(
        gate,
        memories if isinstance(memories, dict) else {},
        counts if isinstance(counts, dict) else {},
        moment.now_ms,
        moment.iso,
    )


async def limits(
    redis: Redis, clock: Clock, store: StoreAddress | str = "its URL"
) -> dict[str, Any]:
    """What is left of the API limits: what `status` shows of them, and every named limit, breaker
    and advice besides, and which Novas wait for a permit.

    Raises StoreUnreachable and its like, CorruptState.
    """
    from novawf.limits.view import every_limit  # noqa: PLC0415 - pydantic costs 50 ms

    with translate_errors(store):
        beats = cast("dict[str, str]", await redis.hgetall(keys.NOVAS))
    said = await document(redis, store)
    skew_s = clock.wall_s() - clock.now_ms() / 1000
    return {
        **await _limits(redis, clock, store, said),
        **await every_limit(redis, clock, limit_settings(said), store),
        "waiting": [
            {"nova": name, "task": beat.task, "since": iso(beat.permit_ms / 1000 + skew_s)}
            for name, beat in _beats(beats)
            if beat.permit_ms
        ],
    }


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


def _beats(texts: Mapping[str, str]) -> list[tuple[str, NovaBeat]]:
    return [(name, NovaBeat.from_json(text)) for name, text in sorted(texts.items())]


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


def _fleet(said: dict[str, Any], evidence: FleetEvidence, now_ms: int) -> dict[str, Any]:
    gate, stop = evidence.gate, None
    if gate.stopped:
        stop = {
            "reason": gate.stop_reason,
            "by": gate.stop_by,
            "at": iso(gate.stop_wall_s),
            "drains": gate.stop_drains,
            "running": evidence.counts["in_progress"],
        }
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
"""Of a `LimitSnapshot`: its line is known to the limiter alone, so it is left out here."""
