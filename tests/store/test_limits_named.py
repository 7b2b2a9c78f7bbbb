"""Named limits, the gate, breakers and providers' advice, as the scripts in a real store decide."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from breaker_cases import CASES, LEASE, NOW, RULES, Case
from gate import open_gate
from losing_proxy import LosingProxy
from waiting import until

from novawf.clock import ManualClock
from novawf.errors import UserError
from novawf.limits.breaker import Breaker
from novawf.limits.config import LimitSettings, NamedLimit
from novawf.limits.ledger import (
    Denied,
    Outcome,
    Permit,
    PermitLedger,
    Release,
    Request,
    Windows,
    reset,
)
from novawf.limits.rate_limiter import RateLimiter
from novawf.limits.request import OK, ApiAnswer
from novawf.safety import events
from novawf.safety.gate import Gate
from novawf.safety.verdict import unsafe
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect

if TYPE_CHECKING:
    from redis.asyncio import Redis

NAMED = LimitSettings(
    requests_per_minute=10,
    concurrent=10,
    critical_share=0.2,
    named={
        "anthropic": NamedLimit(requests_per_minute=4, concurrent=3),
        "anthropic/alice": NamedLimit(requests_per_hour=2),
        "anthropic/bob": NamedLimit(concurrent=1),
        "openai": NamedLimit(),
    },
)
WIDE = LimitSettings(
    requests_per_minute=1000,
    concurrent=1000,
    breaker_failures=3,
    breaker_open_s=1,
    breaker_open_cap_s=5,
    named={"x": NamedLimit(requests_per_minute=60), "y": NamedLimit()},
)
_NUMBERS = count(1)


@pytest.fixture(autouse=True)
async def _verdict(redis: Redis) -> None:
    """The gate is open."""
    await open_gate(redis)


@pytest.fixture
async def proxy(
    redis: Redis, clock: ManualClock, valkey_server: StoreAddress, tmp_path: Path
) -> AsyncIterator[LosingProxy]:
    """In front of a store that knows the scripts."""
    await PermitLedger(redis, clock, LimitSettings()).snapshot()
    await PermitLedger(redis, ManualClock(0), LimitSettings()).grant("warm")
    await redis.delete(keys.LIMIT_GRANTS, keys.LIMIT_LEASES, keys.LIMIT_COUNTS)
    proxy = LosingProxy(valkey_server, tmp_path)
    await proxy.start()
    yield proxy
    await proxy.close()


async def grants(ledger: PermitLedger, number: int, limit: str = "", **more: Any) -> int:
    """How many of so many requests are granted."""
    asked = [Request(f"one-{next(_NUMBERS)}", limit, **more) for _ in range(number)]
    return sum(isinstance(answer, Permit) for answer in await ledger.grant_many(asked))


async def everything(redis: Any) -> dict[str, str]:
    """All that the store holds."""
    return {key: await redis.dump(key) for key in sorted(await redis.keys("*"))}


# -- named limits ---------------------------------------------------------------------------------


async def test_all_limits_of_a_request_grant_it_or_none_does(
    redis: Redis, clock: ManualClock
) -> None:
    ledger = PermitLedger(redis, clock, NAMED)
    assert isinstance(await ledger.grant("b1", "anthropic/bob"), Permit)
    before = await everything(redis)
    assert await ledger.grant("b2", "anthropic/bob") == Denied(
        36_000, "concurrent", "anthropic/bob"
    )
    assert await everything(redis) == before
    fleet, *named = await ledger.snapshots()
    used = {limit.name: limit.in_use for limit in (fleet, *named)}
    assert used == {"": 1, "anthropic": 1, "anthropic/alice": 0, "anthropic/bob": 1, "openai": 0}


async def test_a_provider_s_limit_holds_over_all_its_logins(
    redis: Redis, clock: ManualClock
) -> None:
    ledger = PermitLedger(redis, clock, NAMED)
    assert await grants(ledger, 1, "anthropic/bob") == 1
    assert await grants(ledger, 5, "anthropic/alice") == 2
    assert (await ledger.grant("more", "anthropic/bob")).limit in ("anthropic", "anthropic/bob")
    assert await grants(ledger, 1, "openai") == 1  # which has none of its own


async def test_a_release_frees_the_places_in_all_limits(redis: Redis, clock: ManualClock) -> None:
    ledger = PermitLedger(redis, clock, NAMED)
    await ledger.grant("b1", "anthropic/bob")
    assert await ledger.release("b1", Outcome.OK, "anthropic/bob") is Release.RELEASED
    assert await ledger.release("b1", Outcome.OK, "anthropic/bob") is Release.NO_LEASE
    for limit in await ledger.snapshots():
        assert (limit.in_use, limit.ok) == (
            0,
            int(limit.name in ("", "anthropic", "anthropic/bob")),
        )


async def test_an_undeclared_limit_is_refused_before_anything_is_asked(
    redis: Redis, clock: ManualClock
) -> None:
    limiter = RateLimiter(redis, clock, NAMED)
    with pytest.raises(UserError, match=r"anthropic/eve.*nearest known is anthropic"):
        await limiter.acquire("high", "torch", limit="anthropic/eve")
    assert limiter.waiting == 0


async def test_a_share_of_every_window_is_kept_for_critical_callers(
    redis: Redis, clock: ManualClock
) -> None:
    ledger = PermitLedger(redis, clock, NAMED.model_copy(update={"concurrent": 100}))
    assert await grants(ledger, 20) == 8
    assert await grants(ledger, 20, critical=True) == 2


async def test_one_that_its_own_limit_blocks_keeps_nobody_behind_it_waiting(
    redis: Redis, clock: ManualClock
) -> None:
    limiter = RateLimiter(redis, clock, NAMED)
    held = await limiter.acquire("low", "first", limit="anthropic/bob")
    first = [asyncio.create_task(limiter.acquire("critical", "c", limit="anthropic/bob"))]
    first += [
        asyncio.create_task(limiter.acquire("high", "h", limit="anthropic/bob")) for _ in range(99)
    ]
    await until(lambda: limiter.waiting == 100)
    behind = await asyncio.wait_for(limiter.acquire("background", "b", limit="openai"), 5)
    assert behind.limit == "openai"
    assert limiter.waiting == 100
    await limiter.release(held.id, OK, held.limit)
    assert (await asyncio.wait_for(first[0], 5)).limit == "anthropic/bob"
    await limiter.close()
    await asyncio.gather(*first, return_exceptions=True)


async def test_fifty_callers_at_once_are_served_in_a_few_round_trips(
    redis: Redis, clock: ManualClock
) -> None:
    limiter = RateLimiter(redis, clock, WIDE)
    await limiter.release((await limiter.acquire("low", "warm")).id, OK)
    await redis.config_resetstat()
    permits = await asyncio.gather(*(limiter.acquire("medium", str(n)) for n in range(50)))
    assert len({permit.id for permit in permits}) == 50
    stats = await redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] <= 3


# -- lost replies ---------------------------------------------------------------------------------


async def test_callers_whose_grants_were_lost_on_the_way_get_the_very_same(
    redis: Redis, clock: ManualClock, proxy: LosingProxy
) -> None:
    async with connect(proxy.address) as client:
        limiter = RateLimiter(client, clock, LimitSettings(concurrent=3))
        proxy.lose(keys.LIMIT_GRANTS)
        permits = await asyncio.gather(*(limiter.acquire("low", str(n)) for n in range(3)))
        assert proxy.lost.is_set()
    assert len({permit.id for permit in permits}) == 3
    assert await redis.zcard(keys.LIMIT_GRANTS) == 3


async def test_a_grant_that_was_lost_and_that_nobody_waits_for_any_more_is_voided(
    redis: Redis, clock: ManualClock, proxy: LosingProxy
) -> None:
    async with connect(proxy.address) as client:
        limiter = RateLimiter(client, clock, LimitSettings(concurrent=1))
        proxy.lose(keys.LIMIT_GRANTS)
        gone = asyncio.create_task(limiter.acquire("low", "gone"))
        await until(lambda: limiter.fault)
        gone.cancel()
        assert await asyncio.wait_for(limiter.acquire("low", "next"), 10)
        assert await redis.hget(keys.LIMIT_COUNTS, "void") == "1"


# -- the gate -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "blocked_by"),
    [
        ({}, "safety"),
        ({"verdict": "safe"}, "safety"),
        ({"verdict": "safe", "valid_until": "soon"}, "safety"),
        ({"verdict": "safe", "valid_until": "nan"}, "safety"),
        ({"verdict": "safe", "valid_until": "1"}, "safety"),
        ({"verdict": "unsafe", "valid_until": str(2**52)}, "safety"),
        ({"verdict": "sofa", "valid_until": str(2**52)}, "safety"),
        ({"verdict": "safe", "valid_until": str(2**52), "stop": "1"}, "stop"),
    ],
)
async def test_without_a_valid_verdict_that_says_safe_there_is_no_permit(
    redis: Any, clock: ManualClock, gate: dict[str, str], blocked_by: str
) -> None:
    await redis.delete(keys.GATE)
    if gate:
        await redis.hset(keys.GATE, mapping=gate)
    ledger = PermitLedger(redis, clock, LimitSettings())
    assert await ledger.grant("p", critical=True) == Denied(500, blocked_by)
    assert (await ledger.snapshot()).blocked_by == blocked_by
    await redis.hdel(keys.GATE, "stop")
    await open_gate(redis)
    assert isinstance(await ledger.grant("p"), Permit)


async def test_a_stop_and_its_end_are_felt_by_those_who_wait(
    redis: Redis, clock: ManualClock
) -> None:
    gate = Gate(redis, clock)
    await gate.stop("fire", "test")
    limiter = RateLimiter(redis, clock, LimitSettings())
    waiting = asyncio.create_task(limiter.acquire("critical", "torch"))
    await until(lambda: limiter.waiting == 1)
    await gate.clear_stop("test")
    assert await asyncio.wait_for(waiting, 5)
    await gate.refresh(unsafe("no answer", clock.now_ms() + 10_000))
    assert (await limiter.snapshot()).blocked_by == "safety"


async def test_a_gate_of_another_type_grants_nothing_and_says_so(
    redis: Any, clock: ManualClock
) -> None:
    await redis.set(keys.GATE, "x")
    limiter = RateLimiter(redis, clock, LimitSettings())
    waiting = asyncio.create_task(limiter.acquire("critical", "torch"))
    await until(lambda: limiter.fault)
    await redis.delete(keys.GATE)
    await open_gate(redis)
    assert await asyncio.wait_for(waiting, 5)


# -- breakers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_the_script_does_what_the_table_says(
    redis: Any, clock: ManualClock, case: Case
) -> None:
    clock.ms = NOW
    ledger = PermitLedger(redis, clock, WIDE)
    assert RULES.failures == WIDE.breaker_failures
    await redis.hset(keys.LIMIT_BREAKERS, "x", case.before.pack())
    if case.event == "ask":
        answer = await ledger.grant("p", "x")
        if case.effect.admitted:
            assert isinstance(answer, Permit)
            assert answer.expires_at_ms == NOW + LEASE
        else:
            assert answer == Denied(case.effect.wait_ms, "breaker", "x")
    else:
        for key in (keys.LIMIT_LEASES, keys.limit_leases("x")):
            await redis.zadd(key, {"p": NOW + 1})
        outcome = {"ok": Outcome.OK, "void": Outcome.VOID}.get(case.event, Outcome.FAILED)
        said = {"answered": ApiAnswer(ok=False, status=404)}.get(case.event)
        assert await ledger.release("p", outcome, "x", said) is Release.RELEASED
    assert Breaker.parse("x", await redis.hget(keys.LIMIT_BREAKERS, "x")) == case.after


async def test_half_open_admits_exactly_one_whoever_asks(redis: Any, clock: ManualClock) -> None:
    ledgers = [PermitLedger(redis, clock, WIDE) for _ in range(5)]
    due = Breaker("open", 3, clock.now_ms(), 1)
    await redis.hset(keys.LIMIT_BREAKERS, "x", due.pack())
    asked = [ledger.grant(f"p{n}", "x") for n in range(10) for ledger in ledgers[n % 5 :][:1]]
    answers = await asyncio.gather(*asked)
    assert sum(isinstance(answer, Permit) for answer in answers) == 1


async def test_an_upstream_that_is_ill_leaves_the_others_alone(
    redis: Redis, clock: ManualClock
) -> None:
    ledger = PermitLedger(redis, clock, WIDE)
    for n in range(3):
        await ledger.grant(f"p{n}", "x")
        await ledger.release(f"p{n}", Outcome.FAILED, "x")
    assert await ledger.grant("x", "x") == Denied(1000, "breaker", "x")
    assert await grants(ledger, 1, "y") == 1
    assert await grants(ledger, 1) == 1


async def test_unnamed_requests_have_a_breaker_of_their_own(
    redis: Redis, clock: ManualClock
) -> None:
    ledger = PermitLedger(redis, clock, WIDE)
    for n in range(3):
        await ledger.grant(f"p{n}")
        await ledger.release(f"p{n}", Outcome.FAILED)
    assert await ledger.grant("next") == Denied(1000, "breaker", "default")
    clock.advance(1000)
    assert isinstance(await ledger.grant("probe"), Permit)
    assert await ledger.grant("next") == Denied(36_000, "breaker", "default")
    clock.advance(36_000)  # the probe died
    assert isinstance(await ledger.grant("next"), Permit)
    # The one that was taken for dead comes back: it has no say any more.
    assert await ledger.release("probe", Outcome.OK) is Release.NO_LEASE
    assert isinstance(await ledger.grant("more"), Denied)
    assert await ledger.release("next", Outcome.OK) is Release.RELEASED
    assert await grants(ledger, 5) == 5


@pytest.mark.parametrize("key", [keys.LIMIT_BREAKERS, keys.LIMIT_ADVICE])
@pytest.mark.parametrize("garbage", ["", "nonsense", "open|x|0|0||0", "1|2", "9|closed|0|0|0|0|0"])
async def test_state_that_cannot_be_read_blocks_what_it_is_about_until_it_is_reset(
    redis: Any, clock: ManualClock, key: str, garbage: str
) -> None:
    ledger = PermitLedger(redis, clock, WIDE)
    await redis.hset(key, "x", garbage)
    assert await ledger.grant("p", "x") == Denied(5000, "corrupt", "x")
    assert await grants(ledger, 1, "y") == 1
    await reset(redis, "x")
    assert isinstance(await ledger.grant("p", "x"), Permit)


@pytest.mark.parametrize("key", [keys.LIMIT_BREAKERS, keys.LIMIT_ADVICE])
async def test_a_key_of_another_type_blocks_all_until_it_is_reset(
    redis: Any, clock: ManualClock, key: str
) -> None:
    await redis.set(key, "x")
    limiter = RateLimiter(redis, clock, WIDE)
    waiting = asyncio.create_task(limiter.acquire("critical", "torch"))
    await until(lambda: limiter.fault)
    await reset(redis, "x")
    assert await asyncio.wait_for(waiting, 5)


# -- what providers say ---------------------------------------------------------------------------


async def request(ledger: PermitLedger, name: str, answer: ApiAnswer, limit: str = "x") -> None:
    assert isinstance(await ledger.grant(name, limit), Permit)
    outcome = Outcome.OK if answer.ok else Outcome.FAILED
    assert await ledger.release(name, outcome, limit, answer) is Release.RELEASED


async def test_a_limit_waits_until_its_provider_said(redis: Redis, clock: ManualClock) -> None:
    ledger = PermitLedger(redis, clock, WIDE)
    await request(ledger, "p", ApiAnswer(False, 429, retry_after_s=17))
    assert await ledger.grant("q", "x") == Denied(17_000, "provider", "x")
    assert await grants(ledger, 1, "y") == 1
    clock.advance(16_999)
    assert await ledger.grant("q", "x") == Denied(1, "provider", "x")
    clock.advance(1)
    assert isinstance(await ledger.grant("q", "x"), Permit)


async def test_a_shorter_advice_does_not_undo_a_longer_one(
    redis: Redis, clock: ManualClock
) -> None:
    ledger = PermitLedger(redis, clock, WIDE)
    await ledger.grant("p", "x")
    await ledger.grant("q", "x")
    await ledger.release("p", Outcome.FAILED, "x", ApiAnswer(False, 429, retry_after_s=60))
    await ledger.release("q", Outcome.FAILED, "x", ApiAnswer(False, 429, retry_after_s=1))
    assert await ledger.grant("r", "x") == Denied(60_000, "provider", "x")


async def test_an_absurd_advice_is_obeyed_for_an_hour(redis: Redis, clock: ManualClock) -> None:
    ledger = PermitLedger(redis, clock, WIDE)
    await request(ledger, "p", ApiAnswer(False, 429, retry_after_s=365 * 86400))
    assert await ledger.grant("q", "x") == Denied(3_600_000, "provider", "x")


async def test_refusals_without_advice_are_answered_by_ever_longer_pauses(
    redis: Redis, clock: ManualClock
) -> None:
    ledger = PermitLedger(redis, clock, WIDE)
    for n, pause_ms in enumerate((5_000, 10_000, 20_000)):
        await request(ledger, f"p{n}", ApiAnswer(False, 429))
        assert await ledger.grant("q", "x") == Denied(pause_ms, "provider", "x")
        clock.advance(pause_ms)
    await request(ledger, "good", ApiAnswer(True, 200))
    await request(ledger, "bad", ApiAnswer(False, 429))
    assert await ledger.grant("q", "x") == Denied(5_000, "provider", "x")


async def test_what_is_nearly_used_up_is_spread_until_the_reset(
    redis: Redis, clock: ManualClock
) -> None:
    ledger = PermitLedger(redis, clock, WIDE)
    full = ApiAnswer(True, 200, utilization=0.9, remaining=6, resets_in_s=60)
    await request(ledger, "p", full)
    at_ms, began_ms = [], clock.now_ms()
    while clock.now_ms() < began_ms + 59_999:
        answer = await ledger.grant(f"q{len(at_ms)}", "x")
        if isinstance(answer, Permit):
            at_ms.append(clock.now_ms() - began_ms)
        else:
            assert (answer.blocked_by, answer.limit) == ("provider", "x")
            clock.advance(answer.wait_ms)
    assert at_ms[:5] == [10_000, 20_000, 30_000, 40_000, 50_000]
    assert await grants(ledger, 2, "x") == 2  # it is fresh again


async def test_good_news_end_the_spreading(redis: Redis, clock: ManualClock) -> None:
    ledger = PermitLedger(redis, clock, WIDE)
    await ledger.grant("other", "x")
    await request(ledger, "p", ApiAnswer(True, 200, utilization=1.0, remaining=0, resets_in_s=60))
    assert await ledger.grant("q", "x") == Denied(60_000, "provider", "x")
    fresh = ApiAnswer(True, 200, utilization=0.1, resets_in_s=60)
    await ledger.release("other", Outcome.OK, "x", fresh)
    assert await grants(ledger, 2, "x") == 2


async def test_a_repeated_release_teaches_nothing_twice(redis: Redis, clock: ManualClock) -> None:
    ledger = PermitLedger(redis, clock, WIDE)
    bad = ApiAnswer(False, 529)
    await request(ledger, "p", bad)
    before = await everything(redis)
    clock.advance(100)
    assert await ledger.release("p", Outcome.FAILED, "x", bad) is Release.NO_LEASE
    assert await everything(redis) == before


# -- requests without a permit --------------------------------------------------------------------


async def test_a_request_that_nobody_granted_is_counted_and_told(
    redis: Redis, clock: ManualClock
) -> None:
    told = []

    async def tell(limit: str, permit_id: str) -> None:
        told.append((limit, permit_id))

    limiter = RateLimiter(redis, clock, WIDE, unpermitted=tell)
    permit = await limiter.acquire("low", "torch", limit="x")
    assert await limiter.release(permit.id, OK, "x")
    assert not await limiter.release(permit.id, OK, "x")  # a repeat is none
    assert not await limiter.void("never")  # nor is what was not sent
    assert told == []
    assert not await limiter.release("never", OK, "x")
    assert told == [("x", "never")]
    assert (await limiter.snapshot()).unpermitted == 1


async def test_it_is_reported_as_the_violation_that_it_is(redis: Redis, clock: ManualClock) -> None:
    tell = partial(events.unpermitted, redis, clock)
    limiter = RateLimiter(redis, clock, WIDE, unpermitted=tell)
    await limiter.release("never", OK, "x")
    ((entry_id, fields),) = await redis.xrange(keys.SAFETY_EVENTS)
    event = events.SafetyEvent.parse(entry_id, fields)
    assert (event.kind, event.source) == (events.Kind.API_HAMMERING, "x")
    assert "never was never granted" in event.detail


def test_the_windows_are_longer_than_the_limits_by_the_time_to_start() -> None:
    """30 grants in 60 s alone would allow 31 starts (architecture §5)."""
    assert Windows().start_within_ms == 1000
