"""How long streams are and how far behind the fleet is."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from novawf.store import keys
from novawf.streams.catalogue import GROUP, consumed
from novawf.streams.lag import StreamStat, stream_statistics

WORK = keys.WORK_QUEUE


async def stat(redis: Any, name: str = WORK) -> StreamStat:
    return next(row for row in await stream_statistics(redis, ["torch"]) if row.name == name)


async def read(redis: Any, count: int, *, ack: bool) -> None:
    ((_, entries),) = await redis.xreadgroup(GROUP, "me", {WORK: ">"}, count=count)
    if ack:
        await redis.xack(WORK, GROUP, *(entry_id for entry_id, _ in entries))


async def test_what_the_fleet_reads_is_listed_even_when_empty(redis: Redis) -> None:
    """A stream that is missing is a stream without work."""
    stats = await stream_statistics(redis, ["torch"])
    assert [row.name for row in stats] == sorted(consumed(["torch"]))
    assert all((row.length, row.lag, row.oldest_age_s) == (0, 0, None) for row in stats)


async def test_lag_is_what_was_not_consumed(redis: Redis) -> None:
    """Not delivered plus delivered and not acknowledged; all of it while nobody reads."""
    for number in range(10):
        await redis.xadd(WORK, {"n": number})
    before = await stat(redis)
    assert (before.length, before.lag, before.pending) == (10, 10, 0)
    await redis.xgroup_create(WORK, GROUP, id="0")
    await read(redis, 3, ack=True)
    await read(redis, 2, ack=False)
    after = await stat(redis)
    assert (after.length, after.lag, after.pending) == (10, 7, 2)
    assert after.oldest_age_s is not None
    assert 0 <= after.oldest_age_s < 60
    assert after.bytes is not None
    assert after.bytes > 100


async def test_lag_is_counted_where_the_store_cannot_tell(redis: Redis) -> None:
    """Deleting entries one by one makes the store's own figure unknown."""
    entries = [await redis.xadd(WORK, {b"n": b"\xff"}) for _ in range(20)]
    await redis.xgroup_create(WORK, GROUP, id="0")
    await redis.execute_command(
        "XREADGROUP", "GROUP", GROUP, "me", "COUNT", 5, "STREAMS", WORK, ">", NEVER_DECODE=True
    )
    await redis.xack(WORK, GROUP, *entries[:5])
    await redis.xdel(WORK, entries[10])
    groups: Any = await redis.xinfo_groups(WORK)
    assert groups[0]["lag"] is None
    assert (await stat(redis)).lag == 14


async def test_an_uncountable_lag_is_never_too_little(redis: Redis) -> None:
    """Beyond a hundred the whole length stands for it."""
    entries = [await redis.xadd(WORK, {"n": n}) for n in range(150)]
    await redis.xgroup_create(WORK, GROUP, id="0")
    await read(redis, 5, ack=True)
    await redis.xdel(WORK, entries[10])
    assert (await stat(redis)).lag == 149


async def test_streams_that_the_fleet_does_not_read_have_no_lag(redis: Redis) -> None:
    """Protocol records are for others."""
    await redis.xadd(keys.todo("torch"), {"n": 1})
    row = await stat(redis, keys.todo("torch"))
    assert (row.length, row.lag, row.pending) == (1, None, None)


async def test_groups_and_entries_that_are_no_text_do_no_harm(redis: Redis) -> None:
    """Anybody may name a group, and write what he likes."""
    await redis.xadd(WORK, {b"\xff": b"\xfe"})
    await redis.xgroup_create(WORK, b"\xff", id="0")
    assert (await stat(redis)).lag == 1
