"""The fleet as Prometheus sees it (architecture §6, "Metrics"): read from the store, then shown.

Counters live in the store, written by the same scripts as the changes they count, so they are
exact and survive a crash of whoever shows them. `read` takes a snapshot as plain data, `families`
turns one into metric families and is pure. Nothing here decides anything, and what the store does
not hold (or what is broken there) has no series rather than a made-up one.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from novawf.clock import Clock, SystemClock
from novawf.errors import CorruptState
from novawf.fleet_view import novas
from novawf.limits import metrics as limits
from novawf.limits.budget_metrics import budget_families, read_budget
from novawf.safety.gate import GateView, parse_gate
from novawf.safety.metrics import safety_families
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect_sync, translate_errors
from novawf.streams.catalogue import consumed, protocol
from novawf.streams.lag import ask_groups, ask_rest, judge_groups, judge_rest
from novawf.streams.quarantine import quarantine_counts
from novawf.tasks.model import TIER_MS, Status
from novawf.tasks.protocol import Compliance
from novawf.tasks.state import TaskState
from novawf.telemetry.counters import latency, number, restarts
from novawf.telemetry.prometheus import FleetCollector, MetricsServer, histogram
from novawf.workflow.identity import ChildRecord, NovaBeat

if TYPE_CHECKING:
    from redis import Redis

T = TypeVar("T")

TIERS_UP_TO: Final = 5_000
"""A queue up to this long is broken down by tier, which costs a look at each task (0.5 µs in the
store, 1 µs here, measured); a longer one shows its length as tier `all`. The sum over tiers is the
depth either way."""
_CHUNK: Final = 1_000
"""States asked for at once: a Nova's claim never waits longer than the store needs for these."""
_TIER: Final = TaskState._fields.index("tier_ms")
_TIER_NAMES: Final = {str(offset_ms): tier for tier, offset_ms in TIER_MS.items()}
_STATUSES: Final = tuple(status.value for status in Status)
_ENDED: Final = ("completed", "blocked", "retry", "requeue", "lost")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The store's figures at one moment."""

    document: Mapping[str, Any]
    """What the supervisor said of itself and of the store (`keys.FLEET`)."""
    novas: tuple[Mapping[str, Any], ...]
    """Rows of `fleet_view.novas`."""
    cycles: Mapping[str, int]
    """Nova → cycles in all its lives. From its last beat even when that is of a dead process:
    a counter that fell to 0 and came back would be counted twice."""
    records: Mapping[str, ChildRecord]
    gate: GateView | None
    memories: Mapping[str, str]
    """What the safety mechanisms remember."""
    safety: Mapping[str, str]
    """Violations and durations of safety checks."""
    now_ms: int
    counts: Mapping[str, str]
    depth: Mapping[str, int]
    streams: Mapping[str, int]
    lags: Mapping[str, int]
    """Stream that the fleet reads → entries it has not consumed."""
    quarantined: Mapping[str, int]
    compliance: Compliance
    limits: limits.LimitFigures
    budget: Sequence[dict[str, Any]] = ()
    """Rows of `budget_view.rows`."""


def serve_metrics(store: StoreAddress, clock_offset_ms: int, host: str, port: int) -> MetricsServer:
    """A server of the fleet's metrics, not started yet."""
    redis = connect_sync(store, name="metrics")
    clock = SystemClock(clock_offset_ms)
    collector = FleetCollector(lambda: families(read(redis, clock, store)))
    return MetricsServer(collector, host, port)


def read(redis: Redis, clock: Clock, store: StoreAddress | str = "its URL") -> Snapshot:
    """Ask the store, in four round trips, one per thousand queued tasks and one for named limits.

    `store` is named in errors. Raises StoreUnreachable and its like.
    """
    now_ms = clock.now_ms()
    with translate_errors(store):
        with redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.FLEET)
            pipe.hgetall(keys.CHILDREN)
            pipe.hgetall(keys.NOVAS)
            pipe.hgetall(keys.GATE)
            pipe.hgetall(keys.TASK_COUNTS)
            pipe.hgetall(keys.SIGNAL_COUNTS)
            pipe.hgetall(keys.PROTOCOL)
            pipe.hgetall(keys.SAFETY_STATE)
            pipe.hgetall(keys.SAFETY_COUNTS)
            limits.ask(pipe, now_ms)
            pipe.zcard(keys.READY)
            pipe.zcard(keys.PINNED)
            replies = pipe.execute()
        fleet, children, beating, held, counts, signals, checked, *rest = replies
        memories, safety, *figures = rest
        asked, ready = figures[: limits.READS], figures[limits.READS :]
        records = _parsed(children, ChildRecord.from_json)
        beats = _parsed(beating, NovaBeat.from_json)
        gate = _gate(held)
        rows = novas(records, beats, now_ms, 0.0, gate.paused_novas if gate else frozenset())
        names = [row["id"] for row in rows]
        depth = _depth(redis, sum(ready))
        streams, lags = _streams(redis, names)
        document = _object(fleet.get("document", ""))
        left = limits.read(asked, document.get("limits"), redis, now_ms)
        budget = read_budget(redis, document, now_ms)
    return Snapshot(
        document=document,
        novas=tuple(rows),
        cycles={name: beats[name].cycles for name in names if name in beats},
        records=records,
        gate=gate,
        memories=memories,
        safety=safety,
        now_ms=now_ms,
        counts=counts,
        depth=depth,
        streams=streams,
        lags=lags,
        quarantined=quarantine_counts(signals),
        compliance=Compliance.read(checked.get("valid"), checked.get("all")),
        limits=left,
        budget=budget,
    )


def families(at: Snapshot) -> Iterator[Metric]:
    """Everything architecture §6 names that exists, `store_up` aside (the collector knows it)."""
    yield from _nova_families(at)
    yield from _task_families(at)
    yield from limits.families(at.limits)
    yield from budget_families(at.budget)
    yield from safety_families(
        at.gate, at.memories, at.safety, [row["id"] for row in at.novas], at.now_ms
    )
    restarted = CounterMetricFamily(
        "novawf_restarts", "Restarts of a child of the supervisor.", labels=("child", "cause")
    )
    for child, cause, count in _restarts(at):
        restarted.add_metric((child, cause), count)
    yield restarted
    yield from _stream_families(at)
    spares = at.document.get("spares")
    if isinstance(spares, dict) and spares.get("wanted"):
        standing_by = GaugeMetricFamily(
            "novawf_spares", "Standby Novas, wanted and ready.", labels=("which",)
        )
        for which in ("wanted", "ready"):
            standing_by.add_metric((which,), number(spares.get(which)))
        yield standing_by
    store = at.document.get("store")
    if isinstance(store, dict) and "loss_window_s" in store:
        window_s = store["loss_window_s"]
        yield GaugeMetricFamily(
            "novawf_store_loss_window_seconds",
            "Acknowledged writes that a crash of the store's machine may take, in seconds.",
            value=math.inf if window_s is None else float(window_s),
        )


def _nova_families(at: Snapshot) -> Iterable[Metric]:
    up = GaugeMetricFamily(
        "novawf_nova_up", "1 while the Nova is alive and listening.", labels=("nova",)
    )
    state = GaugeMetricFamily(
        "novawf_nova_state", "1 for the state the Nova is in.", labels=("nova", "state")
    )
    cycles = CounterMetricFamily("novawf_cycles", "Cycles completed.", labels=("nova",))
    for row in at.novas:
        name = row["id"]
        up.add_metric((name,), int(row["alive"] and row["listening"]))
        state.add_metric((name, row["state"]), 1)
        cycles.add_metric((name,), at.cycles.get(name, 0))
    return up, state, cycles


def _task_families(at: Snapshot) -> Iterable[Metric]:
    total = CounterMetricFamily(
        "novawf_tasks",
        "Tasks admitted, and attempts ended by their verdict: an attempt may end in a retry, "
        "be handed back (requeue) or be lost with its Nova.",
        labels=("status",),
    )
    total.add_metric(("admitted",), number(at.counts.get("admitted")))
    for verdict in _ENDED:
        total.add_metric((verdict,), number(at.counts.get(f"ended:{verdict}")))
    now = GaugeMetricFamily("novawf_tasks_now", "Tasks by their status now.", labels=("status",))
    for status in _STATUSES:
        now.add_metric((status,), max(0, number(at.counts.get(status))))
    depth = GaugeMetricFamily(
        "novawf_queue_depth",
        f"Tasks that may start now. By tier up to {TIERS_UP_TO}, beyond that as tier all.",
        labels=("tier",),
    )
    for tier, count in at.depth.items():
        depth.add_metric((tier,), count)
    return (
        total,
        now,
        depth,
        histogram(
            "novawf_task_duration_seconds",
            "From an attempt's start to its end.",
            latency(at.counts, "duration"),
        ),
        histogram(
            "novawf_claim_latency_seconds",
            "The store's answer to a claim.",
            latency(at.counts, "claim"),
        ),
        histogram(
            "novawf_wake_latency_seconds",
            "From ready to started, for tasks that found an idle Nova.",
            latency(at.counts, "wake"),
        ),
    )


def _stream_families(at: Snapshot) -> Iterable[Metric]:
    lengths = GaugeMetricFamily(
        "novawf_stream_length", "Entries of a protocol stream.", labels=("stream",)
    )
    for stream, length in at.streams.items():
        lengths.add_metric((stream,), length)
    lags = GaugeMetricFamily(
        "novawf_stream_lag",
        "Entries that the fleet has not consumed, of a stream that it reads.",
        labels=("stream",),
    )
    for stream, lag in at.lags.items():
        lags.add_metric((stream,), lag)
    refused = CounterMetricFamily(
        "novawf_stream_quarantined", "Entries refused, with their reason.", labels=("stream",)
    )
    for stream, count in at.quarantined.items():
        refused.add_metric((stream,), count)
    records = CounterMetricFamily(
        "novawf_protocol_records",
        "Records on task streams that were checked against the protocol.",
        labels=("verdict",),
    )
    records.add_metric(("valid",), at.compliance.valid)
    records.add_metric(("broken",), at.compliance.all - at.compliance.valid)
    return lengths, lags, refused, records, *_compliance(at)


def _compliance(at: Snapshot) -> Iterator[Metric]:
    if at.compliance.ratio is not None:
        yield GaugeMetricFamily(
            "novawf_protocol_compliance_ratio",
            "Valid records by all that were checked; it has no series while there is none.",
            value=at.compliance.ratio,
        )


def _restarts(at: Snapshot) -> Iterator[tuple[str, str, int]]:
    """Restarts by cause; of a child whose causes nobody counted, the supervisor's own number."""
    counted = sorted(restarts(at.counts))
    yield from counted
    known = {child for child, _, _ in counted}
    for child, record in at.records.items():
        if child not in known:
            yield child, "unknown", record.restarts


def _depth(redis: Redis, depth: int) -> dict[str, int]:
    if depth > TIERS_UP_TO:
        return {"all": depth}
    tiers = dict.fromkeys(TIER_MS, 0)
    if depth:
        with redis.pipeline(transaction=False) as pipe:
            pipe.zrange(keys.READY, 0, -1)
            pipe.zrange(keys.PINNED, 0, -1)
            ready, pinned = pipe.execute()
        for tier, count in _tiers(redis, [*ready, *(m.rsplit("|", 1)[1] for m in pinned)]).items():
            tiers[tier] = tiers.get(tier, 0) + count
    return tiers


def _streams(redis: Redis, names: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Length and lag of streams; what is no stream has neither."""
    read = consumed(names)
    streams = (*protocol(names), keys.QUARANTINE)
    with redis.pipeline(transaction=False) as pipe:
        for stream in streams:
            pipe.xlen(stream)
        ask_groups(pipe, read)
        replies = pipe.execute(raise_on_error=False)
    lengths = {
        name: length
        for name, length in zip(streams, replies, strict=False)
        if isinstance(length, int)
    }
    groups = dict(zip(read, replies[len(streams) :], strict=True))
    lags = {}
    for stream in (name for name in read if name in lengths):
        lag = judge_groups(lengths[stream], groups[stream])
        if lag.undelivered is None:
            with redis.pipeline(transaction=False) as pipe:
                ask_rest(pipe, stream, lag)
                (rest,) = pipe.execute(raise_on_error=False)
            lag = lag._replace(undelivered=judge_rest(lengths[stream], rest))
        lags[stream] = lag.total or 0
    return {name: length for name, length in lengths.items() if length}, lags


def _tiers(redis: Redis, task_ids: list[str]) -> dict[str, int]:
    """How many of these tasks are of each tier. A tier never changes, so when is no matter."""
    found: Counter[str] = Counter()
    for start in range(0, len(task_ids), _CHUNK):
        states: Any = redis.hmget(keys.TASK_STATE, task_ids[start : start + _CHUNK])
        found.update(s.split("|", _TIER + 1)[_TIER] for s in states if s)
    return {_TIER_NAMES.get(offset_ms, "other"): count for offset_ms, count in found.items()}


def _parsed(texts: Mapping[str, str], parse: Callable[[str], T]) -> dict[str, T]:
    """What can be read of a hash of records; one that is broken hides itself, not the others."""
    records = {}
    for name, text in sorted(texts.items()):
        with contextlib.suppress(CorruptState):
            records[name] = parse(text)
    return records


def _gate(fields: Mapping[str, str]) -> GateView | None:
    try:
        return parse_gate(fields)
    except ValueError:
        return None


def _object(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
