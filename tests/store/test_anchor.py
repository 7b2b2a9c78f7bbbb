"""Fleet time's anchor: one offset per boot, and time that never goes back."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from novawf import clock
from novawf.store import keys
from novawf.store.anchor import anchor, anchor_by_store, apart_ms, note_drift, read_anchor

NOW_MS = 1_795_000_000_000


async def test_racing_callers_of_one_boot_agree(redis: Redis) -> None:
    """Whoever comes first sets the offset; clocks that differ by milliseconds do not matter."""
    offsets = await asyncio.gather(
        *(anchor(redis, boot_id="b", wall_offset_ms=NOW_MS + i, boottime_ms=5) for i in range(20))
    )
    assert len(set(offsets)) == 1
    assert await read_anchor(redis, boot_id="b") == offsets[0]


async def test_a_stepped_wall_clock_moves_nothing(redis: Redis) -> None:
    """Within a boot the first offset stays, however the wall clock jumps."""
    first = await anchor(redis, boot_id="b", wall_offset_ms=NOW_MS, boottime_ms=1000)
    assert first == NOW_MS
    for jump_ms in (-3_600_000, 3_600_000):
        again = await anchor(redis, boot_id="b", wall_offset_ms=NOW_MS + jump_ms, boottime_ms=2000)
        assert again == first


async def test_fleet_time_does_not_go_back_over_a_reboot(redis: Redis) -> None:
    """A machine that boots with its clock a day behind goes on from the last time noted."""
    await anchor(redis, boot_id="b1", wall_offset_ms=NOW_MS, boottime_ms=1000)
    await anchor(redis, boot_id="b1", wall_offset_ms=NOW_MS, boottime_ms=600_000)
    last_ms = NOW_MS + 600_000
    offset = await anchor(
        redis, boot_id="b2", wall_offset_ms=last_ms - 86_400_000, boottime_ms=3000
    )
    assert 3000 + offset == last_ms


async def test_fleet_time_follows_the_wall_clock_over_a_reboot(redis: Redis) -> None:
    """In the usual case the new boot's wall clock is ahead of the last time noted."""
    await anchor(redis, boot_id="b1", wall_offset_ms=NOW_MS, boottime_ms=1000)
    offset = await anchor(redis, boot_id="b2", wall_offset_ms=NOW_MS + 90_000, boottime_ms=3000)
    assert offset == NOW_MS + 90_000


async def test_the_noted_time_only_grows(redis: Redis) -> None:
    """A late caller does not take it back."""
    for boottime_ms in (5000, 2000):
        await anchor(redis, boot_id="b", wall_offset_ms=NOW_MS, boottime_ms=boottime_ms)
    assert await redis.hget(keys.CLOCK, "last_ms") == str(NOW_MS + 5000)


async def test_without_an_anchor_the_wall_clock_serves(redis: Redis) -> None:
    """Reading sets nothing."""
    assert abs(await read_anchor(redis) - clock.wall_offset_ms()) < 1000
    assert not await redis.exists(keys.CLOCK)


async def test_this_machines_own_values_are_the_default(redis: Redis) -> None:
    """A process needs no arguments to agree with the others."""
    offset = await anchor(redis)
    assert abs(offset - clock.wall_offset_ms()) < 1000
    assert await read_anchor(redis) == offset


async def test_a_machine_of_a_cluster_is_set_by_the_store_and_not_by_its_own_clock(
    redis: Redis,
) -> None:
    """The store's TIME here is this machine's: no further off than the round trips take."""
    offset = await anchor_by_store(redis, boot_id="first")
    assert abs(offset - clock.wall_offset_ms()) < 100
    assert await anchor_by_store(redis, boot_id="first") == offset
    assert await read_anchor(redis, boot_id="first") == offset


async def test_a_machine_that_comes_later_agrees_though_the_stores_clock_was_stepped(
    redis: Redis,
) -> None:
    """An hour's step since the fleet began: it shows as drift, and is taken out again."""
    hour_ms = 3_600_000
    fleet_offset = clock.wall_offset_ms() - hour_ms
    await anchor(redis, boot_id="first", wall_offset_ms=fleet_offset)
    assert abs(await note_drift(redis, fleet_offset) - hour_ms) < 100
    late = await anchor_by_store(redis, boot_id="late")
    assert abs(late - fleet_offset) < 100


async def test_how_far_two_machines_are_apart_is_told_against_the_store(redis: Redis) -> None:
    offset = await anchor_by_store(redis, boot_id="first")
    assert await apart_ms(redis, offset) == 0, "nothing was noted yet"
    await note_drift(redis, offset)
    assert abs(await apart_ms(redis, offset)) < 100
    assert abs(await apart_ms(redis, offset - 5000) - 5000) < 100
