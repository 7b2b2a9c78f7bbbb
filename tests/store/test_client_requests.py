"""A process outside the fleet asks under the fleet's limits, and is counted like any other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gate import open_gate
from waiting import until

from novawf.client import Fleet
from novawf.errors import UserError
from novawf.executors.context import RateLimited, RequestTimedOut
from novawf.limits.breaker import Breaker
from novawf.limits.config import LimitSettings, NamedLimit
from novawf.store import keys
from novawf.store.connect import StoreAddress

SETTINGS = LimitSettings(
    concurrent=2,
    request_timeout_s=1,
    named={"x": NamedLimit(concurrent=1), "slow": NamedLimit(request_timeout_s=60)},
)


@pytest.fixture
async def fleet(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A client of a fleet that said what its limits are, and whose gate is open."""
    document = {"limits": json.loads(SETTINGS.model_dump_json())}
    await redis.hset(keys.FLEET, "document", json.dumps(document))
    await open_gate(redis)
    async with Fleet.connect(home=tmp_path, store=valkey_server) as fleet:
        yield fleet


async def test_a_request_has_a_permit_while_it_lasts(fleet: Fleet) -> None:
    async with fleet.api_request("x") as permit:
        assert permit["limit"] == "x"
        limits = await fleet.limits()
        assert limits["in_use"] == 1
        assert [row["in_use"] for row in limits["named"]] == [0, 1]
    limits = await fleet.limits()
    assert (limits["in_use"], limits["ok"], limits["failed"]) == (0, 1, 0)


async def test_the_limits_hold_over_all_clients(
    fleet: Fleet, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    async with Fleet.connect(home=tmp_path, store=valkey_server) as other:
        running = most = 0

        async def one(asking: Fleet) -> None:
            nonlocal running, most
            async with asking.api_request():
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.01)
                running -= 1

        await asyncio.gather(*(one(fleet if n % 2 else other) for n in range(20)))
    assert most == SETTINGS.concurrent


async def test_a_body_that_takes_too_long_is_cancelled(fleet: Fleet) -> None:
    with pytest.raises(RequestTimedOut, match="longer than the 1 s"):
        async with fleet.api_request():
            await asyncio.sleep(60)
    assert (await fleet.limits())["failed"] == 1


async def test_a_timeout_of_the_body_s_own_stays_its_own(fleet: Fleet) -> None:
    with pytest.raises(TimeoutError, match="mine"):
        async with fleet.api_request():
            raise TimeoutError("mine")


async def test_what_the_provider_said_slows_its_limit(fleet: Fleet) -> None:
    with pytest.raises(RateLimited):
        async with fleet.api_request("x") as permit:
            permit.answered(headers={"Retry-After": "50"})
            raise RateLimited("slow down")
    limits = await fleet.limits()
    (advice,) = limits["advice"]
    assert (advice["limit"], advice["gap_s"]) == ("x", None)
    (row,) = [row for row in limits["named"] if row["name"] == "x"]
    assert row["blocked_by"] == "provider"
    assert 45 < row["next_free_in_s"] <= 50
    async with fleet.api_request():
        pass  # the others go on


async def test_a_caller_that_is_cancelled_gives_its_permit_back(fleet: Fleet) -> None:
    inside = asyncio.Event()

    async def body() -> None:
        async with fleet.api_request("slow"):
            inside.set()
            await asyncio.sleep(60)

    running = asyncio.create_task(body())
    await inside.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    async def freed() -> bool:
        return (await fleet.limits())["in_use"] == 0

    while not await freed():
        await asyncio.sleep(0.005)


async def test_what_may_not_be_asked_is_refused_before(fleet: Fleet) -> None:
    with pytest.raises(UserError, match="nearest known is x"):
        async with fleet.api_request("xx"):
            raise AssertionError
    with pytest.raises(UserError, match="cost_usd"):
        async with fleet.api_request(cost_usd=-1.0):
            raise AssertionError
    with pytest.raises(UserError, match="urgent"):
        async with fleet.api_request(tier="urgent"):
            raise AssertionError


async def test_without_a_verdict_nobody_outside_gets_a_permit(fleet: Fleet) -> None:
    await fleet.redis.delete(keys.GATE)
    asking = asyncio.create_task(fleet.api_request().__aenter__())
    await until(lambda: fleet._requests and fleet._requests._limiter)
    assert (await fleet.limits())["blocked_by"] == "safety"
    await open_gate(fleet.redis)
    assert await asyncio.wait_for(asking, 5)


async def test_a_breaker_that_cannot_be_read_is_shown_and_reset(fleet: Fleet) -> None:
    open_one = Breaker("open", 5, fleet.clock.now_ms() + 20_000, 1)
    await fleet.redis.hset(keys.LIMIT_BREAKERS, mapping={"x": "garbage", "y": open_one.pack()})
    await fleet.redis.hset(keys.LIMIT_ADVICE, "slow", "garbage")
    limits = await fleet.limits()
    broken, other = limits["breakers"]
    assert (broken["state"], other["state"]) == ("corrupt", "open")
    assert "novawf limits --reset x" in broken["error"]
    assert "novawf limits --reset slow" in limits["advice"][0]["error"]
    for name in ("x", "slow"):
        await fleet.reset_limit(name)
    limits = await fleet.limits()
    assert [row["upstream"] for row in limits["breakers"]] == ["y"]
    assert limits["advice"] == []
    with pytest.raises(UserError, match="no name of a limit"):
        await fleet.reset_limit("no such thing")
