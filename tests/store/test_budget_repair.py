"""Broken budgets are shown, and mended at what everything else vouches for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from budget_world import BROKEN, HOUR_MS, NOON_MS, SETTINGS, TORCH, break_store, contents, cost

from novawf.clock import ManualClock
from novawf.errors import CorruptState
from novawf.limits.budget import Budgets
from novawf.limits.budget_repair import inspect, mend, plan
from novawf.limits.budget_scopes import Payer, field, window_numbers
from novawf.store import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

ECHO = Payer(nova="echo", provider="openai", task="ECHO-1-1")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON_MS)


@pytest.fixture
async def budgets(redis: Redis, clock: ManualClock) -> Budgets:
    """Some money was spent in two hours: 1.5 + 0.3 + 0.75 USD, of which 0.75 is reserved."""
    budgets = Budgets(redis, clock, SETTINGS)
    await budgets.reserve("r1", cost(2, 10), TORCH)
    await budgets.settle("r1", 1_500_000, 7)
    await budgets.reserve("r2", cost(0.3), ECHO)
    await budgets.settle("r2")
    clock.advance(HOUR_MS)
    await budgets.reserve("r3", cost(0.75, 5), TORCH)
    return budgets


async def repair(redis: Any, clock: ManualClock) -> int:
    mends = plan(await inspect(redis), clock.now_ms())
    assert await mend(redis, mends) == len(mends)
    assert plan(await inspect(redis), clock.now_ms()) == []
    assert await mend(redis, mends) == 0
    return len(mends)


async def test_nothing_is_broken_of_what_we_wrote(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """At any time: while calls are open, after corrections, after sweeps."""
    assert plan(await inspect(redis), clock.now_ms()) == []
    clock.advance(HOUR_MS * 30)
    await budgets.correct("r3", 100, None, "the bill")
    assert plan(await inspect(redis), clock.now_ms()) == []
    for _ in range(4):
        clock.advance(HOUR_MS * 13)
        await budgets.sweep()
        assert plan(await inspect(redis), clock.now_ms()) == []


async def test_an_empty_store_is_whole(redis: Redis, clock: ManualClock) -> None:
    """Nothing was spent yet."""
    assert plan(await inspect(redis), clock.now_ms()) == []


@pytest.mark.parametrize("how", BROKEN)
async def test_every_broken_part_is_mended_at_what_it_was(
    redis: Any, clock: ManualClock, budgets: Budgets, how: str
) -> None:
    """Here everything that was spent is still vouched for, so nothing at all is lost."""
    before = await contents(redis)
    await break_store(redis, how)
    assert await repair(redis, clock) >= 1
    after = await contents(redis)
    assert after[1:] != [] and after[0]["version"] == "1"
    if how not in ("the meta is another type", "garbage in the sweep's bound"):
        assert after[0] == before[0]
    if how == "the reservations are another type":
        assert (after[1], after[3], after[4:]) == (before[1], {}, [[], []])
    else:
        assert after[1:] == before[1:]
    await budgets.reserve("new", cost(0.5), TORCH)


async def test_a_broken_reservation_goes_and_what_it_booked_stays(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """Never below what is known."""
    before = await redis.hgetall(keys.BUDGET_SPENT)
    await redis.hset(keys.BUDGET_RESERVATIONS, "r3", b"\xff\xfe")
    clock.advance(60_000)
    with pytest.raises(CorruptState, match="`novawf budget repair`"):
        await budgets.unconfirmed()
    assert await repair(redis, clock) == 2
    assert await redis.hgetall(keys.BUDGET_SPENT) == before
    assert set(await redis.hkeys(keys.BUDGET_RESERVATIONS)) == {"r1", "r2"}
    assert (await budgets.unconfirmed()).number == 0


async def test_bytes_that_are_no_text_are_refused_and_mended(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """In a sum, and as the name of a field."""
    hour = field("fleet", "", "hour", "usd", *window_numbers(clock.now_ms()))
    await redis.hset(keys.BUDGET_SPENT, hour, b"\xff")
    await redis.hset(keys.BUDGET_SPENT, b"\xfe", 1)
    for say in (budgets.reserve("new", cost(1), TORCH), budgets.exhausted(), budgets.sweep()):
        with pytest.raises(CorruptState, match="`novawf budget repair`"):
            await say
    assert await repair(redis, clock) == 2
    assert await redis.hget(keys.BUDGET_SPENT, hour) == "750000"
    await budgets.reserve("new", cost(1), TORCH)


async def test_a_lost_sum_is_vouched_for_by_shorter_windows_and_narrower_accounts(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """When the reservations are gone too, the day knows of its hours and the fleet of its Novas."""
    now = window_numbers(clock.now_ms())
    await redis.delete(keys.BUDGET_RESERVATIONS, keys.BUDGET_OPEN, keys.BUDGET_ENDED)
    for window in ("hour", "day", "total"):
        await redis.hset(keys.BUDGET_SPENT, field("fleet", "", window, "usd", *now), "?")
    await redis.hset(keys.BUDGET_SPENT, field("nova", "torch", "day", "usd", *now), "?")
    await repair(redis, clock)
    values = await redis.hgetall(keys.BUDGET_SPENT)
    assert values[field("nova", "torch", "day", "usd", *now)] == "2250000"
    assert values[field("fleet", "", "hour", "usd", *now)] == "750000"
    assert values[field("fleet", "", "day", "usd", *now)] == "2550000"
    assert values["fleet|total|usd"] == "2550000"


async def test_a_sum_below_its_reservations_is_raised(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """A figure that can be read and cannot be true."""
    await redis.hset(keys.BUDGET_SPENT, "fleet|total|usd", "5")
    clock.advance(60_000)
    with pytest.raises(CorruptState, match="budget repair"):
        await budgets.settle("r3", 0)
    (one,) = plan(await inspect(redis), clock.now_ms())
    assert one.why.startswith("is below what is known; it becomes 2.55 USD")
    await repair(redis, clock)
    assert await budgets.settle("r3", 0)


async def test_a_mend_leaves_alone_what_changed_meanwhile(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """Somebody else repaired it first."""
    await redis.hset(keys.BUDGET_SPENT, "fleet|total|usd", "x")
    mends = plan(await inspect(redis), clock.now_ms())
    await redis.hset(keys.BUDGET_SPENT, "fleet|total|usd", "9000000")
    assert await mend(redis, mends) == 0
    assert await redis.hget(keys.BUDGET_SPENT, "fleet|total|usd") == "9000000"
