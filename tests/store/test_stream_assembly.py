"""The streams of a fleet put together: what comes by which stream becomes what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from stream_world import QUICK
from waiting import until

from novawf.clock import SystemClock
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.streams.assembly import FleetStreams, StreamConfig
from novawf.streams.quarantine import quarantined
from novawf.tasks.tracker import TaskTracker


@pytest.fixture
async def fleet(valkey_server: StoreAddress, redis: Redis) -> AsyncIterator[FleetStreams]:
    """The streams of torch, read."""
    made = FleetStreams(StreamConfig(valkey_server, ("torch",), QUICK), SystemClock())
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await made.close()


async def rows(redis: Any, count: int) -> dict[str, dict[str, Any]]:
    """Tasks by title, once there are so many."""
    tracker = TaskTracker(redis, SystemClock())

    async def enough() -> bool:
        return len(await tracker.list()) >= count

    await until(enough, 10, what=f"{count} tasks")
    return {row["title"]: row for row in await tracker.list()}


async def test_work_alerts_and_messages_become_tasks_for_whom_they_are_meant(
    fleet: FleetStreams, redis: Any
) -> None:
    """Work for the Nova it names, an alert for whoever is free, a message for its Nova."""
    await redis.xadd(keys.WORK_QUEUE, {"title": "work", "argv": '["true"]', "nova": "torch"})
    await redis.xadd(
        keys.PRIORITY_ALERTS, {"title": "alert", "message": "m", "priority": "critical"}
    )
    await redis.xadd(
        keys.coordination("torch"), {"title": "message", "message": "m", "priority": "critical"}
    )
    found = await rows(redis, 3)
    assert found["work"]["nova"] == "torch"
    by_nova = sorted((row["nova"] or "", row["priority"]) for row in found.values())
    assert by_nova == [("", "critical"), ("torch", "critical"), ("torch", "medium")]


async def test_what_breaks_a_rule_is_refused_on_every_stream(
    fleet: FleetStreams, redis: Any
) -> None:
    """Also a message: the reader goes on."""
    await redis.xadd(keys.coordination("torch"), {b"\xff": b"\xff"})
    await redis.xadd(keys.PRIORITY_ALERTS, {"nonsense": "x"})
    await redis.xadd(keys.WORK_QUEUE, {"title": "work"})
    await rows(redis, 1)
    streams = {row["stream"] for row in await quarantined(redis)}
    assert streams == {keys.coordination("torch"), keys.PRIORITY_ALERTS}


async def test_a_nova_that_joins_is_heard(fleet: FleetStreams, redis: Any) -> None:
    """Messages from before it was known included."""
    await redis.xadd(keys.coordination("echo"), {"message": "m", "priority": "critical"})
    fleet.add_novas(["echo", "torch"])
    (row,) = (await rows(redis, 1)).values()
    assert row["nova"] == "echo"
    assert fleet.novas == ["torch", "echo"]
