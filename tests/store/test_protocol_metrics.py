"""What happens to tasks reaches nova.enterprise.metrics, and records are checked, once each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from losing_proxy import LosingProxy
from redis.exceptions import ConnectionError as RedisConnectionError

from novawf.clock import ManualClock, iso
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.tasks.compliance import CHUNK, ComplianceCheck
from novawf.tasks.protocol import Compliance
from novawf.tasks.protocol_metrics import CHECK_EVERY_MS, ProtocolMetrics

if TYPE_CHECKING:
    from redis.asyncio import Redis

TIME = "2026-03-01T10:00:00.000Z"
RECORD: dict[str, str] = {
    "task_id": "TORCH-1772359200-00002a",
    "title": "x",
    "description": "",
    "status": "pending",
    "priority": "medium",
    "assignee": "torch",
    "created_at": TIME,
    "updated_at": TIME,
}
TODO = keys.todo("torch")


async def posted(redis: Redis) -> list[tuple[str, str, str, str, int]]:
    """What stands in nova.enterprise.metrics: name, Nova, type, value, total."""
    entries: Any = await redis.xrange(keys.ENTERPRISE_METRICS)
    found = []
    for _, fields in entries:
        assert [*fields] == ["name", "value", "type", "timestamp", "nova_id", "context"]
        total = json.loads(fields["context"])["total"]
        found.append((fields["name"], fields["nova_id"], fields["type"], fields["value"], total))
    return sorted(found)


async def test_what_changed_since_the_last_time_is_posted(redis: Redis, clock: ManualClock) -> None:
    """A counter's growth, a gauge's value, of the fleet and of each Nova; nothing else."""
    metrics = ProtocolMetrics(redis, clock)
    counts: dict[str, int] = {
        "admitted": 3, "pending": 2, "in_progress": 1, "nova:torch:claimed": 1,
        "duration:3": 7, "wake:sum": 900, "restart:torch:killed": 1,
    }  # fmt: skip
    await redis.hset(keys.TASK_COUNTS, mapping=counts)
    assert await metrics.publish() == 4
    assert await posted(redis) == [
        ("nova_tasks_claimed", "torch", "counter", "1", 1),
        ("tasks_admitted", "fleet", "counter", "3", 3),
        ("tasks_now_in_progress", "fleet", "gauge", "1", 1),
        ("tasks_now_pending", "fleet", "gauge", "2", 2),
    ]
    entries: Any = await redis.xrange(keys.ENTERPRISE_METRICS)
    assert {fields["timestamp"] for _, fields in entries} == {iso(clock.wall_s())}

    assert await metrics.publish() == 0
    await redis.delete(keys.ENTERPRISE_METRICS)
    counts = {"admitted": 5, "pending": 1, "ended:completed": 1, "nova:torch:completed": 1}
    await redis.hset(keys.TASK_COUNTS, mapping=counts)
    assert await metrics.publish() == 4
    assert await posted(redis) == [
        ("nova_tasks_completed", "torch", "counter", "1", 1),
        ("tasks_admitted", "fleet", "counter", "2", 5),
        ("tasks_completed", "fleet", "counter", "1", 1),
        ("tasks_now_pending", "fleet", "gauge", "1", 1),
    ]


async def test_nothing_is_posted_twice_when_a_reply_is_lost(
    redis: Redis, clock: ManualClock, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    """Posting and noting it are one step: whoever repeats finds it done."""
    proxy = LosingProxy(valkey_server, tmp_path)
    await proxy.start()
    unlucky = connect(proxy.address, name="unlucky")
    try:
        metrics = ProtocolMetrics(unlucky, clock)
        await redis.hset(keys.TASK_COUNTS, "admitted", 1)
        assert await metrics.publish() == 1  # the store knows the script by now
        await redis.hset(keys.TASK_COUNTS, "admitted", 9)
        proxy.lose("EVALSHA")
        with pytest.raises(RedisConnectionError):
            await metrics.publish()
        assert await metrics.publish() == 0
        assert await posted(redis) == [
            ("tasks_admitted", "fleet", "counter", "1", 1),
            ("tasks_admitted", "fleet", "counter", "8", 9),
        ]
    finally:
        await unlucky.aclose()
        await proxy.close()


async def test_records_of_anyone_are_judged(redis: Redis) -> None:
    """Foreign records, bytes, streams of nobody and keys of other types harm no reader."""
    await redis.xadd(TODO, RECORD)  # type: ignore[arg-type]
    await redis.xadd(TODO, {"hello": "world"})
    await redis.xadd(TODO, {b"\xff\xfe": b"\x80"})
    await redis.xadd(keys.completed("torch"), RECORD)  # type: ignore[arg-type]
    await redis.xadd(keys.todo("NOT A NOVA"), RECORD | {"assignee": "NOT A NOVA"})  # type: ignore[arg-type]
    await redis.set(keys.progress("echo"), "a string")
    check = ComplianceCheck(redis)
    assert await check.round()
    assert await check.figure() == Compliance(1, 5)
    assert await check.last_violation() is not None
    await redis.xadd(TODO, RECORD | {"priority": "urgent"})  # type: ignore[arg-type]
    assert await check.round()
    assert await check.figure() == Compliance(1, 6)
    last = await check.last_violation()
    assert last is not None
    assert (last["stream"], last["field"]) == (TODO, "priority")
    assert "'urgent' is none of" in last["rule"]


async def test_a_key_that_turns_into_something_else_is_left(redis: Redis) -> None:
    """A stream that was replaced by another type is no reason to stop checking the others."""
    check = ComplianceCheck(redis)
    await redis.xadd(TODO, RECORD)  # type: ignore[arg-type]
    await check.round()
    await redis.delete(TODO)
    await redis.set(TODO, "a string")
    await redis.xadd(keys.todo("echo"), RECORD | {"assignee": "echo"})  # type: ignore[arg-type]
    assert await check.round()
    assert await check.figure() == Compliance(2, 2)


async def test_each_record_is_counted_once_by_any_number_of_readers(redis: Redis) -> None:
    """A restarted reader goes on where the other left off; two at once do not count double."""
    for _ in range(CHUNK + 1):
        await redis.xadd(TODO, RECORD)  # type: ignore[arg-type]
    one, two = ComplianceCheck(redis), ComplianceCheck(redis)
    await one.round()
    await redis.xadd(TODO, RECORD)  # type: ignore[arg-type]
    await two.round()
    await one.round()
    await redis.xadd(TODO, RECORD)  # type: ignore[arg-type]
    await one.round()
    assert await one.figure() == Compliance(CHUNK + 3, CHUNK + 3)


async def test_no_record_is_counted_twice_when_a_reply_is_lost(
    redis: Redis, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    """What was counted and up to where are one step."""
    proxy = LosingProxy(valkey_server, tmp_path)
    await proxy.start()
    unlucky = connect(proxy.address, name="unlucky")
    try:
        check = ComplianceCheck(unlucky)
        await redis.xadd(TODO, RECORD)  # type: ignore[arg-type]
        await check.round()
        await redis.xadd(TODO, RECORD)  # type: ignore[arg-type]
        proxy.lose("EVALSHA")
        with pytest.raises(RedisConnectionError):
            await check.round()
        await check.round()
        assert await check.figure() == Compliance(2, 2)
    finally:
        await unlucky.aclose()
        await proxy.close()


async def test_a_round_stops_at_its_limit_and_goes_on_later(redis: Redis) -> None:
    """Checking never holds up whoever does it for long."""
    async with redis.pipeline(transaction=False) as pipe:
        for _ in range(3 * CHUNK):
            pipe.xadd(TODO, RECORD)  # type: ignore[arg-type]
        await pipe.execute()
    check = ComplianceCheck(redis)
    assert not await check.round(limit_s=0)
    assert await check.figure() == Compliance(CHUNK, CHUNK)
    assert await check.round(limit_s=60)
    assert await check.figure() == Compliance(3 * CHUNK, 3 * CHUNK)


async def test_a_new_stream_is_found(redis: Redis) -> None:
    """A Nova that comes later has its records checked too."""
    check = ComplianceCheck(redis)
    await check.round()
    await redis.xadd(keys.todo("late"), RECORD | {"assignee": "late"})  # type: ignore[arg-type]
    await check.round()
    assert await check.figure() == Compliance(1, 1)


async def test_the_publisher_checks_every_few_seconds(redis: Redis, clock: ManualClock) -> None:
    """Counting is cheap enough for every second, reading all streams is not."""
    metrics = ProtocolMetrics(redis, clock)
    await metrics.publish()
    await redis.xadd(TODO, RECORD)  # type: ignore[arg-type]
    clock.advance(CHECK_EVERY_MS - 1)
    await metrics.publish()
    assert await metrics.compliance.figure() == Compliance(0, 0)
    clock.advance(1)
    await metrics.publish()
    assert await metrics.compliance.figure() == Compliance(1, 1)
