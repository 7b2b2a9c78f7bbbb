"""What Prometheus is shown is what the store holds, at every scrape, whatever state it is in."""

from __future__ import annotations

import bisect
import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gate import open_gate
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from valkey_process import running_valkey

from novawf import fleet_metrics
from novawf.clock import ManualClock
from novawf.errors import InvalidConfig, PortInUse
from novawf.fleet_metrics import families, read, serve_metrics
from novawf.ids import request_id
from novawf.limits.config import LimitSettings, NamedLimit
from novawf.limits.ledger import Outcome, Permit, PermitLedger
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect_sync
from novawf.streams.catalogue import GROUP
from novawf.tasks.claims import Claim, Claimant, Ended, Measured, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.telemetry.buckets import LATENCY_US
from novawf.telemetry.counters import count_restart
from novawf.telemetry.ports import check_port_free
from novawf.telemetry.prometheus import FleetCollector, MetricsServer
from novawf.workflow.identity import ChildRecord, NovaBeat

if TYPE_CHECKING:
    import redis as redis_sync
    from redis.asyncio import Redis


class Scrape:
    """The values of one scrape: `scrape("name", label=…)`; None where there is no such series."""

    def __init__(self, text: str) -> None:
        self.values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.values.get((f"novawf_{name}", tuple(sorted(labels.items()))))

    def names(self) -> set[str]:
        """Names of all series of the fleet."""
        return {name for name, _ in self.values if name.startswith("novawf_")}


@pytest.fixture
def store(redis: Redis, valkey_server: StoreAddress) -> Iterator[redis_sync.Redis]:
    """A blocking client of the emptied store, as the metrics server has one."""
    client = connect_sync(valkey_server)
    yield client
    client.close()


@pytest.fixture
def scrape(store: redis_sync.Redis, clock: ManualClock) -> Any:
    """One scrape of the store, through the collector and the text format."""
    from prometheus_client import generate_latest

    def once() -> Scrape:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(FleetCollector(lambda: families(read(store, clock))))
        return Scrape(generate_latest(registry).decode())

    return once


def beat(clock: ManualClock, pid: int = 7, cycles: int = 5, age_ms: int = 0) -> str:
    at_ms = clock.now_ms() - age_ms
    return NovaBeat(
        pid=pid, epoch=1, state="task_execution", phase="work_phase_1", task="T-1-000001",
        cycles=cycles, seen_ms=at_ms, progress_ms=at_ms, since_ms=at_ms,
    ).to_json()  # fmt: skip


def child(pid: int = 7, **changes: Any) -> str:
    fields: dict[str, Any] = {
        "kind": "nova", "pid": pid, "alive": True, "restarts": 0, "state": "running",
        "since": "2026-11-02T08:00:00.000Z",
    }  # fmt: skip
    return ChildRecord(**(fields | changes)).to_json()


async def admit(redis: Redis, clock: ManualClock, **spec: Any) -> str:
    task = TaskSpec(title="t", argv=["true"], **spec)
    admission = await TaskQueue(redis, clock, TaskSettings()).admit(task, request_id())
    return admission.task_id


async def let_work_start(redis: Redis, clock: ManualClock) -> None:
    await Gate(redis, clock).refresh(safe("test", clock.now_ms() + 6_000))


async def claimant(redis: Redis, clock: ManualClock) -> Claimant:
    epoch = await take_identity(redis, "torch")
    return Claimant(redis, clock, TaskSettings(), "torch", epoch)


def test_an_empty_store_is_up_and_shows_zeros_but_nothing_it_does_not_know(scrape: Any) -> None:
    seen = scrape()
    assert seen("store_up") == 1
    assert seen("tasks_now", status="pending") == 0
    assert seen("queue_depth", tier="medium") == 0
    assert seen("api_limit_remaining", window="minute") is None
    assert seen("store_loss_window_seconds") is None


def test_a_store_that_is_away_shows_store_up_0_and_nothing_else_of_the_fleet(
    tmp_path: Path,
) -> None:
    server = serve_metrics(StoreAddress.unix(tmp_path / "none.sock"), 0, "127.0.0.1", 0)
    server.start()
    try:
        seen = fetch(server)
    finally:
        server.stop()
    assert seen("store_up") == 0
    assert seen.names() == {"novawf_store_up"}


async def test_what_is_broken_in_the_store_hides_itself_and_nothing_else(
    redis: Redis, clock: ManualClock, scrape: Any
) -> None:
    await redis.hset(keys.NOVAS, mapping={"torch": beat(clock), "echo": "{"})
    await redis.hset(keys.CHILDREN, mapping={"torch": child(), "limiter": "[]"})
    await redis.hset(keys.GATE, "epoch", "many")
    await redis.hset(keys.FLEET, "document", '{"limits": {"concurrent": "five"}, "store": 3}')
    await redis.hset(keys.TASK_COUNTS, mapping={"admitted": "x", "completed": 3})
    seen = scrape()
    assert seen("store_up") == 1
    assert seen("nova_up", nova="torch") == 1
    assert seen("stop") is None
    assert seen("tasks_total", status="admitted") == 0
    assert seen("tasks_now", status="completed") == 3


async def test_a_key_of_another_type_leaves_the_store_up_and_raises_nothing(
    redis: Redis, scrape: Any
) -> None:
    await redis.set(keys.FLEET, "somebody else's")
    seen = scrape()
    assert seen("store_up") == 1
    assert seen.names() == {"novawf_store_up"}


async def test_nova_up_is_1_only_while_it_is_alive_and_listening(
    redis: Redis, clock: ManualClock, scrape: Any
) -> None:
    await redis.hset(keys.NOVAS, mapping={"torch": beat(clock), "echo": beat(clock, age_ms=60_000)})
    await redis.hset(
        keys.CHILDREN,
        mapping={
            "torch": child(),
            "echo": child(),
            "helix": child(pid=None, alive=False, state="quarantined"),
            "safety": child(kind="actor"),
        },
    )
    seen = scrape()
    assert [seen("nova_up", nova=n) for n in ("torch", "echo", "helix")] == [1, 0, 0]
    assert seen("nova_up", nova="safety") is None
    assert seen("nova_state", nova="torch", state="task_execution") == 1
    assert seen("nova_state", nova="helix", state="quarantined") == 1


async def test_cycles_do_not_fall_to_zero_while_a_nova_is_being_restarted(
    redis: Redis, clock: ManualClock, scrape: Any
) -> None:
    await redis.hset(keys.NOVAS, "torch", beat(clock, pid=7, cycles=41))
    await redis.hset(keys.CHILDREN, "torch", child(pid=8, state="starting"))
    assert scrape()("cycles_total", nova="torch") == 41


async def test_tasks_are_counted_by_status_now_and_by_every_end_of_an_attempt(
    redis: Redis, clock: ManualClock, scrape: Any
) -> None:
    for _ in range(4):
        await admit(redis, clock)
    await let_work_start(redis, clock)
    worker = await claimant(redis, clock)
    following: Any = await worker.claim()
    for ending in (Ending("completed", ""), Ending("retry", "", 60.0), Ending("blocked", "failed")):
        finished = await worker.finish(following, ending, result="{}", detail="")
        following = finished.following
    assert isinstance(following, Claim)
    seen = scrape()
    now = ("pending", "in_progress", "completed", "blocked")
    assert [seen("tasks_now", status=status) for status in now] == [1, 1, 1, 1]
    ends = ("admitted", "completed", "retry", "blocked", "requeue", "lost")
    assert [seen("tasks_total", status=status) for status in ends] == [4, 1, 1, 1, 0, 0]


async def test_latencies_are_histograms_in_seconds_and_longer_ones_than_any_bound_are_in_inf(
    redis: Redis, clock: ManualClock, scrape: Any
) -> None:
    observed_us = (500, 501, 10 * 3_600_000_000)
    await let_work_start(redis, clock)
    worker = await claimant(redis, clock)
    for microseconds in observed_us:
        await admit(redis, clock)
        claim: Any = await worker.claim()
        bucket = str(bisect.bisect_left(LATENCY_US, microseconds))
        took = Measured(bucket, microseconds)
        ended = Ended(claim, Ending("completed", ""), "{}", "", duration=took, woken=took)
        await worker.record([ended], want=0)
    seen = scrape()
    for name in ("task_duration_seconds", "wake_latency_seconds"):
        assert seen(f"{name}_bucket", le="0.0005") == 1
        assert seen(f"{name}_bucket", le="0.001") == 2
        assert seen(f"{name}_bucket", le="7200.0") == 2
        assert seen(f"{name}_bucket", le="+Inf") == 3
        assert seen(f"{name}_count") == 3
        assert seen(f"{name}_sum") == pytest.approx(sum(observed_us) / 1e6)
    assert seen("claim_latency_seconds_count") == 0


async def test_queue_depth_by_tier_counts_what_may_start_now_pinned_tasks_included(
    redis: Redis, clock: ManualClock, scrape: Any
) -> None:
    first = await admit(redis, clock, priority="critical")
    await admit(redis, clock, priority="critical", nova="torch")
    await admit(redis, clock, priority="background")
    await admit(redis, clock, after=[first])
    seen = scrape()
    tiers = ("critical", "high", "medium", "low", "background")
    assert [seen("queue_depth", tier=tier) for tier in tiers] == [2, 0, 0, 0, 1]
    assert seen("queue_depth", tier="all") is None


async def test_a_long_queue_shows_its_depth_without_a_look_at_each_task(
    redis: Redis, clock: ManualClock, scrape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_metrics, "TIERS_UP_TO", 1)
    await admit(redis, clock)
    await admit(redis, clock, nova="torch")
    await redis.config_resetstat()
    seen = scrape()
    assert seen("queue_depth", tier="all") == 2
    assert seen("queue_depth", tier="medium") is None
    assert "cmdstat_hmget" not in await redis.info("commandstats")


async def test_limits_left_are_those_the_ledger_itself_would_tell(
    redis: Redis, clock: ManualClock, scrape: Any
) -> None:
    named = {"anthropic": NamedLimit(requests_per_minute=4)}
    settings = LimitSettings(
        requests_per_minute=10, requests_per_hour=20, concurrent=5, named=named
    )
    document = {"limits": settings.model_dump()}
    await open_gate(redis)
    await redis.hset(keys.FLEET, "document", json.dumps(document))
    ledger = PermitLedger(redis, clock, settings)
    now_ms = clock.now_ms()
    # At the edges: a grant counts for its window and 1 s more, a lease ends on its millisecond.
    for age_ms in (3_601_000, 61_001, 61_000, 36_001, 36_000, 35_999, 0):
        clock.ms = now_ms - age_ms
        assert isinstance(await ledger.grant(f"p{age_ms}"), Permit)
        if age_ms == 61_000:
            await ledger.release("p61000", Outcome.OK)
    known = await ledger.snapshot()
    seen = scrape()
    assert seen("api_limit_remaining", window="minute") == known.minute_left
    assert seen("api_limit_remaining", window="hour") == known.hour_left
    assert seen("api_concurrency_in_use") == known.in_use
    assert seen("api_requests_total", outcome="ok") == known.ok == 1
    assert seen("api_requests_total", outcome="expired") == known.expired
    assert seen("api_named_limit_remaining", limit="anthropic", window="minute") == 4
    assert seen("api_named_limit_remaining", limit="anthropic", window="hour") is None


async def test_each_upstream_s_breaker_has_its_state_and_what_cannot_be_read_is_open(
    redis: Redis, clock: ManualClock, scrape: Any
) -> None:
    states = {"a": "closed|0|0|0||0", "b": "half_open|5|1|1|p|9", "c": "open|5|9|1||0", "d": "x"}
    await redis.hset(keys.LIMIT_BREAKERS, mapping=states)
    seen = scrape()
    assert [seen("breaker_state", upstream=name) for name in "abcd"] == [0, 1, 2, 2]


async def test_each_thing_that_holds_a_nova_has_its_own_series(
    redis: Redis, clock: ManualClock, scrape: Any
) -> None:
    await redis.hset(keys.NOVAS, mapping={"torch": beat(clock), "echo": beat(clock)})
    gate = Gate(redis, clock)
    await let_work_start(redis, clock)
    await gate.pause("torch")
    seen = scrape()
    assert seen("stop") == 0
    assert seen("safety_paused", nova="torch", mechanism="pause") == 1
    assert seen("safety_paused", nova="echo", mechanism="pause") == 0
    assert seen("safety_paused", nova="torch", mechanism="verdict") == 0
    await gate.stop("fire", "test")
    clock.advance(6_001)
    seen = scrape()
    assert seen("stop") == 1
    assert seen("safety_paused", nova="echo", mechanism="stop") == 1
    assert seen("safety_paused", nova="echo", mechanism="verdict") == 1


async def test_restarts_are_counted_by_cause_and_outlive_whoever_counted_them(
    redis: Redis, scrape: Any
) -> None:
    async with redis.pipeline(transaction=True) as pipe:
        for cause in ("crash", "crash", "StoreUnreachable: the store at x"):
            count_restart(pipe, "torch", cause)
        pipe.hset(keys.CHILDREN, "torch", child(restarts=3))
        pipe.hset(keys.CHILDREN, "echo", child(restarts=2))
        await pipe.execute()
    seen = scrape()
    assert seen("restarts_total", child="torch", cause="crash") == 2
    assert seen("restarts_total", child="torch", cause="storeunreachable") == 1
    assert seen("restarts_total", child="torch", cause="unknown") is None
    assert seen("restarts_total", child="echo", cause="unknown") == 2


@pytest.mark.parametrize(("said", "shown"), [(1.0, 1.0), (None, float("inf"))])
async def test_the_loss_window_is_shown_and_an_unbounded_one_is_infinite(
    redis: Redis, scrape: Any, said: float | None, shown: float
) -> None:
    await redis.hset(keys.FLEET, "document", json.dumps({"store": {"loss_window_s": said}}))
    assert scrape()("store_loss_window_seconds") == shown


async def test_streams_that_exist_show_their_length(
    redis: Redis, clock: ManualClock, scrape: Any
) -> None:
    await admit(redis, clock)
    await redis.xadd(keys.WORK_QUEUE, {"title": "from outside"})
    seen = scrape()
    assert seen("stream_length", stream="nova.tasks.fleet.todo") == 1
    assert seen("stream_length", stream="nova.work.queue") == 1
    assert seen("stream_length", stream="nova.tasks.fleet.completed") is None


async def test_streams_that_nothing_reads_show_their_length_too(redis: Redis, scrape: Any) -> None:
    """What only Novas write to would else grow unseen."""
    await redis.hset(keys.CHILDREN, "torch", child(restarts=0))
    names = ("celebrations", "insights", "status")
    for name in names:
        await redis.xadd(f"nova.{name}.torch", {"type": "x"})
    seen = scrape()
    assert [seen("stream_length", stream=f"nova.{name}.torch") for name in names] == [1, 1, 1]


async def test_streams_that_are_read_show_how_far_behind_the_fleet_is(
    redis: Redis, scrape: Any
) -> None:
    """Not delivered and not acknowledged both count, also where the store cannot tell itself."""
    work = keys.WORK_QUEUE
    entries = [await redis.xadd(work, {"n": n}) for n in range(5)]
    assert scrape()("stream_lag", stream=work) == 5
    await redis.xgroup_create(work, GROUP, id="0")
    await redis.xreadgroup(GROUP, "me", {work: ">"}, count=2)
    await redis.xack(work, GROUP, entries[0])
    assert scrape()("stream_lag", stream=work) == 4
    await redis.xdel(work, entries[3])
    assert scrape()("stream_lag", stream=work) == 3
    assert scrape()("stream_lag", stream=keys.PRIORITY_ALERTS) == 0, "no such stream"


async def test_refused_entries_are_counted_by_stream(redis: Redis, scrape: Any) -> None:
    """A producer that writes nonsense shows."""
    await redis.hset(keys.SIGNAL_COUNTS, mapping={"quarantined:s": "3", "high:task": "1"})
    assert scrape()("stream_quarantined_total", stream="s") == 3


async def test_compliance_is_shown_once_a_record_was_checked(redis: Redis, scrape: Any) -> None:
    """A figure of nothing is no figure."""
    assert scrape()("protocol_compliance_ratio") is None
    await redis.hset(keys.PROTOCOL, mapping={"valid": 3, "all": 4})
    seen = scrape()
    assert seen("protocol_compliance_ratio") == 0.75
    assert seen("protocol_records_total", verdict="valid") == 3
    assert seen("protocol_records_total", verdict="broken") == 1


async def test_a_key_that_is_no_stream_hides_nothing_else(redis: Redis, scrape: Any) -> None:
    """It has no length; the others have."""
    await redis.set(keys.WORK_QUEUE, "x")
    await redis.xadd(keys.PRIORITY_ALERTS, {"n": 1})
    assert scrape()("stream_length", stream=keys.WORK_QUEUE) is None
    assert scrape()("stream_length", stream=keys.PRIORITY_ALERTS) == 1


async def test_a_scrape_sends_reads_only(redis: Redis, clock: ManualClock, scrape: Any) -> None:
    await admit(redis, clock)
    await redis.config_resetstat()
    scrape()
    commands = {name.removeprefix("cmdstat_") for name in await redis.info("commandstats")}
    reads = {"hgetall", "zcount", "zcard", "xlen", "xinfo|groups", "zrange", "hmget"}
    assert commands <= reads | {"client|setname", "config|resetstat"}


def test_the_server_answers_over_http_with_its_own_process_metrics_and_stops_at_once(
    redis: Redis, valkey_server: StoreAddress
) -> None:
    server = serve_metrics(valkey_server, 0, "127.0.0.1", 0)
    server.start()
    try:
        seen = fetch(server)
        assert seen("store_up") == 1
        assert seen.values[("process_resident_memory_bytes", ())] > 0
    finally:
        server.stop()
        server.stop()
    check_port_free("127.0.0.1", server.port, "metrics")


def test_the_server_survives_a_store_that_goes_and_comes_back(
    valkey_binary: Path, tmp_path: Path
) -> None:
    with running_valkey(valkey_binary, tmp_path) as address:
        server = serve_metrics(address, 0, "127.0.0.1", 0)
        server.start()
        try:
            assert fetch(server)("store_up") == 1
        except BaseException:
            server.stop()
            raise
    try:
        assert fetch(server)("store_up") == 0
        with running_valkey(valkey_binary, tmp_path):
            assert fetch(server)("store_up") == 1
    finally:
        server.stop()


def test_a_port_that_is_taken_is_refused_by_number_and_owner_before_and_at_the_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for listen in (
            lambda: check_port_free("127.0.0.1", port, "metrics (--metrics-port)"),
            MetricsServer(FleetCollector(list), "127.0.0.1", port).start,
        ):
            with pytest.raises(PortInUse) as refusal:
                listen()
            text = str(refusal.value)
            assert text.startswith(f"metrics (--metrics-port): port {port} of 127.0.0.1 is in use")
            assert "\n" not in text
            assert refusal.value.exit_code == 2


@pytest.mark.parametrize(("host", "port"), [("no such host", 9464), ("127.0.0.1", 70_000)])
def test_a_port_that_cannot_exist_is_refused_in_one_line(host: str, port: int) -> None:
    with pytest.raises(InvalidConfig, match="cannot listen on"):
        check_port_free(host, port, "metrics")


def fetch(server: MetricsServer) -> Scrape:
    """One scrape as Prometheus makes it."""
    url = f"http://127.0.0.1:{server.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as reply:
        return Scrape(reply.read().decode())
