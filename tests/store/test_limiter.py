"""The limiter on a real store: who gets a permit, when, and what failures may not change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gate import open_gate
from valkey_process import running_valkey
from waiting import until

from novawf.clock import ManualClock, SystemClock
from novawf.errors import Refused, UserError
from novawf.limits.config import LimitSettings
from novawf.limits.ledger import Denied, Outcome, Permit, PermitLedger, Release, Windows
from novawf.limits.rate_limiter import RateLimiter
from novawf.limits.request import FAILED, OK
from novawf.store.connect import connect

if TYPE_CHECKING:
    from redis.asyncio import Redis

ONE_AT_A_TIME = LimitSettings(concurrent=1)


@pytest.fixture(autouse=True)
async def _verdict(redis: Redis) -> None:
    """The gate is open."""
    await open_gate(redis)


@pytest.fixture
async def limiter(redis: Redis, clock: ManualClock) -> AsyncIterator[RateLimiter]:
    """A limiter with one place, on a clock that stands still."""
    limiter = RateLimiter(redis, clock, ONE_AT_A_TIME)
    yield limiter
    await limiter.close()


async def in_line(limiter: RateLimiter, *tiers: str) -> list[asyncio.Task[Permit]]:
    """One waiting caller for each tier, arrived in this order."""
    tasks = []
    for tier in tiers:
        arrived = limiter.waiting + 1
        tasks.append(asyncio.create_task(limiter.acquire(tier, f"{tier}-caller")))
        await until(lambda arrived=arrived: limiter.waiting == arrived)
    return tasks


# -- the line -------------------------------------------------------------------------------------


async def test_a_free_permit_is_granted_at_once(limiter: RateLimiter, clock: ManualClock) -> None:
    permit = await limiter.acquire("medium", "torch")
    now_ms = clock.now_ms()
    assert (permit.granted_at_ms, permit.start_by_ms) == (now_ms, now_ms + 1000)
    assert permit.expires_at_ms == now_ms + 36_000


async def test_callers_are_served_by_tier_then_by_arrival(limiter: RateLimiter) -> None:
    held = await limiter.acquire("low", "first")
    tiers = ["background", "low", "high", "critical", "high", "medium"]
    tasks = await in_line(limiter, *tiers)
    order: list[int] = []
    for number, task in enumerate(tasks):
        task.add_done_callback(lambda _, number=number: order.append(number))
    for count in range(1, len(tasks) + 1):
        await limiter.release(held.id, OK)
        await until(lambda count=count: len(order) == count)
        held = tasks[order[-1]].result()
    assert [tiers[number] for number in order] == [
        "critical", "high", "high", "medium", "low", "background",
    ]  # fmt: skip
    assert order.index(2) < order.index(4)


async def test_a_caller_that_is_cancelled_leaves_the_line(limiter: RateLimiter) -> None:
    held = await limiter.acquire("low", "first")
    gone, stays = await in_line(limiter, "high", "low")
    gone.cancel()
    await until(lambda: limiter.waiting == 1)
    await limiter.release(held.id, OK)
    assert (await stays).id != held.id


async def test_one_cancelled_in_the_moment_of_its_grant_gives_it_back(
    limiter: RateLimiter,
) -> None:
    held = await limiter.acquire("low", "first")
    (waiter,) = await in_line(limiter, "high")
    await limiter.release(held.id, OK)
    while limiter.waiting:  # served now, and its task has not run yet
        await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await asyncio.wait_for(limiter.acquire("low", "next"), 5)
    snapshot = await limiter.snapshot()
    assert (snapshot.void, snapshot.in_use) == (1, 1)


async def test_a_caller_that_waited_its_time_out_is_refused_with_the_cause(
    limiter: RateLimiter,
) -> None:
    await limiter.acquire("low", "first")
    with pytest.raises(Refused, match=r"no permit for torch within 0\.01 s: the limits are used"):
        await limiter.acquire("low", "torch", timeout_s=0.01)
    assert limiter.waiting == 0


async def test_an_unknown_tier_is_refused(limiter: RateLimiter) -> None:
    with pytest.raises(UserError, match="urgent"):
        await limiter.acquire("urgent", "torch")


async def test_closing_sends_everybody_away(limiter: RateLimiter) -> None:
    await limiter.acquire("low", "first")
    tasks = await in_line(limiter, "high", "low")
    await limiter.close()
    for task in tasks:
        with pytest.raises(Refused, match="closing"):
            await task
    with pytest.raises(Refused, match="closing"):
        await limiter.acquire("low", "late")


async def test_nothing_is_asked_of_the_store_when_nobody_waits(
    limiter: RateLimiter, redis: Redis
) -> None:
    permit = await limiter.acquire("low", "first")
    await limiter.release(permit.id, OK)
    pumps = [task for task in asyncio.all_tasks() if task.get_name() == "limiter-pump"]
    assert pumps == []


async def test_the_snapshot_says_what_is_left_in_use_and_waited_for(
    redis: Redis, clock: ManualClock
) -> None:
    settings = LimitSettings(requests_per_minute=3, requests_per_hour=100, concurrent=2)
    limiter = RateLimiter(redis, clock, settings)
    first = await limiter.acquire("low", "a")
    await limiter.acquire("low", "b")
    await limiter.release(first.id, FAILED)
    await limiter.acquire("low", "c")
    tasks = await in_line(limiter, "low", "critical")
    clock.advance(1000)
    snapshot = await limiter.snapshot()
    assert (snapshot.minute_left, snapshot.hour_left, snapshot.in_use) == (0, 97, 2)
    assert (snapshot.waiting, snapshot.callers) == (2, ("critical-caller", "low-caller"))
    assert (snapshot.next_free_in_s, snapshot.blocked_by) == (60.001, "minute")
    assert (snapshot.granted, snapshot.failed, snapshot.ok) == (3, 1, 0)
    await limiter.close()
    for task in tasks:
        with pytest.raises(Refused):
            await task


# -- time -----------------------------------------------------------------------------------------


async def test_a_full_window_is_waited_out_and_no_longer(redis: Redis) -> None:
    settings = LimitSettings(requests_per_minute=2, concurrent=10)
    windows = Windows(minute_ms=150, start_within_ms=50)
    limiter = RateLimiter(redis, SystemClock(), settings, windows=windows)
    try:
        permits = [await limiter.acquire("low", "a", timeout_s=5) for _ in range(6)]
    finally:
        await limiter.close()
    at_ms = [permit.granted_at_ms for permit in permits]
    waits = [later - earlier for earlier, later in zip(at_ms, at_ms[2:], strict=False)]
    assert min(waits) > 200
    assert min(waits) < 300


async def test_a_place_whose_holder_died_is_given_away_when_its_lease_expires(
    redis: Redis, clock: ManualClock
) -> None:
    ledger = PermitLedger(redis, clock, ONE_AT_A_TIME)
    assert isinstance(await ledger.grant("dies"), Permit)
    clock.advance(35_999)
    assert await ledger.grant("next") == Denied(1, "concurrent")
    clock.advance(1)
    assert isinstance(await ledger.grant("next"), Permit)
    assert (await ledger.snapshot()).expired == 1


async def test_a_release_after_the_lease_expired_frees_nobody_elses_place(
    redis: Redis, clock: ManualClock
) -> None:
    ledger = PermitLedger(redis, clock, ONE_AT_A_TIME)
    await ledger.grant("late")
    clock.advance(36_000)
    await ledger.grant("next")
    assert await ledger.release("late", Outcome.OK) is Release.NO_LEASE
    snapshot = await ledger.snapshot()
    assert (snapshot.in_use, snapshot.ok, snapshot.expired) == (1, 0, 1)


async def test_a_clock_that_went_back_gets_no_permits_until_it_has_caught_up(
    redis: Redis, clock: ManualClock
) -> None:
    ledger = PermitLedger(redis, clock, LimitSettings())
    await ledger.grant("before")
    clock.advance(-500)
    assert await ledger.grant("after") == Denied(500, "clock")
    assert (await ledger.snapshot()).blocked_by == "clock"
    clock.advance(500)
    assert isinstance(await ledger.grant("after"), Permit)


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_each_outcome_is_counted_once(
    redis: Redis, clock: ManualClock, outcome: Outcome
) -> None:
    ledger = PermitLedger(redis, clock, LimitSettings())
    await ledger.grant("p")
    assert await ledger.release("p", outcome) is Release.RELEASED
    assert await ledger.release("p", outcome) is Release.NO_LEASE
    snapshot = await ledger.snapshot()
    counts = {"ok": snapshot.ok, "failed": snapshot.failed, "void": snapshot.void}
    assert counts == {name: int(name == outcome) for name in counts}


@pytest.mark.parametrize(
    ("settings", "request_ms", "per_hour", "hours"),
    [
        (LimitSettings(), 1000, 500, 3),
        (LimitSettings(requests_per_hour=1_000_000), 1000, 30 * 60, 1),
        (LimitSettings(requests_per_minute=10_000, requests_per_hour=1_000_000), 30_000, 600, 3),
    ],
    ids=["bound by the hour", "bound by the minute", "bound by the places"],
)
async def test_constant_demand_gets_at_least_93_percent_of_what_the_limits_allow(
    redis: Redis,
    clock: ManualClock,
    settings: LimitSettings,
    request_ms: int,
    per_hour: int,
    hours: int,
) -> None:
    """Simulated hours: a caller is always waiting, each request takes `request_ms`."""
    ledger = PermitLedger(redis, clock, settings)
    end_ms = clock.now_ms() + hours * 3_600_000
    running: list[tuple[int, str]] = []
    granted = 0
    while clock.now_ms() < end_ms:
        while running and running[0][0] <= clock.now_ms():
            await ledger.release(running.pop(0)[1], Outcome.OK)
        answer = await ledger.grant(str(granted))
        if isinstance(answer, Permit):
            running.append((clock.now_ms() + request_ms, str(granted)))
            granted += 1
        else:
            until_release = [ends_ms - clock.now_ms() for ends_ms, _ in running[:1]]
            clock.advance(min([answer.wait_ms, *until_release]))
    assert 0.93 * per_hour * hours <= granted


# -- failures -------------------------------------------------------------------------------------


async def test_a_new_limiter_takes_over_windows_and_places(
    redis: Redis, clock: ManualClock
) -> None:
    settings = LimitSettings(requests_per_minute=2, concurrent=2)
    old = RateLimiter(redis, clock, settings)
    first = await old.acquire("low", "a")
    await old.acquire("low", "b")
    await old.close()
    new = RateLimiter(redis, clock, settings)
    snapshot = await new.snapshot()
    assert (snapshot.minute_left, snapshot.in_use) == (0, 2)
    assert await new.release(first.id, OK)
    with pytest.raises(Refused):
        await new.acquire("low", "c", timeout_s=0.05)
    await new.close()


async def test_while_the_store_is_gone_callers_keep_their_places_and_get_nothing(
    valkey_binary: Path, tmp_path: Path, clock: ManualClock
) -> None:
    with contextlib.ExitStack() as first_life:
        address = first_life.enter_context(running_valkey(valkey_binary, tmp_path))
        client = connect(address)
        await open_gate(client)
        limiter = RateLimiter(client, clock, LimitSettings(), store=address)
        await limiter.acquire("low", "before")
        first_life.close()
        low = asyncio.create_task(limiter.acquire("low", "torch"))
        await until(lambda: limiter.fault)
        high = asyncio.create_task(limiter.acquire("high", "echo"))
        await until(lambda: limiter.waiting == 2)
        assert "does not answer" in (limiter.fault or "")
        with running_valkey(valkey_binary, tmp_path):
            await open_gate(client)  # the one before had no persistence
            permits = await asyncio.wait_for(asyncio.gather(low, high), 5)
            assert limiter.fault is None
            assert permits[0].id != permits[1].id
            await limiter.close()
            await client.aclose()
