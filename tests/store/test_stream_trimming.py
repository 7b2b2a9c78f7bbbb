"""Streams are kept short, and never past what a group on them has not consumed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from novawf.clock import ManualClock
from novawf.store import keys
from novawf.streams.catalogue import GROUP, consumed, protocol
from novawf.streams.config import StreamSettings
from novawf.streams.trimming import Group, Trimmed, Trimmer, first_unconsumed

WORK = keys.WORK_QUEUE
HOUR_MS = 3_600_000


class Trimming:
    """Streams with entries of a known age, and a trimmer for them."""

    def __init__(self, redis: Any, clock: ManualClock) -> None:
        self.redis = redis
        self.clock = clock

    async def fill(self, stream: str, count: int, hours_ago: float = 0.0) -> list[str]:
        """Entries a millisecond apart, the first so old."""
        start_ms = self.clock.now_ms() - round(hours_ago * HOUR_MS)
        return [
            await self.redis.xadd(stream, {"n": n}, id=f"{start_ms + n}-0") for n in range(count)
        ]

    async def consume(self, stream: str, group: str, count: int, *, ack: int | None = None) -> None:
        """A group reads so many entries from the stream's begin, and acknowledges the first."""
        await self.redis.xgroup_create(stream, group, id="0")
        ((_, entries),) = await self.redis.xreadgroup(group, "me", {stream: ">"}, count=count)
        done = [entry_id for entry_id, _ in entries[:ack]]
        if done:
            await self.redis.xack(stream, group, *done)

    async def trim(self, **settings: Any) -> Trimmed:
        trimmer = Trimmer(self.redis, self.clock, StreamSettings(**settings))
        return await trimmer.trim(["torch"])

    async def left(self, stream: str) -> list[str]:
        return [entry_id for entry_id, _ in await self.redis.xrange(stream)]


@pytest.fixture
def trimming(redis: Redis, clock: ManualClock) -> Trimming:
    return Trimming(redis, clock)


async def test_a_stream_without_groups_is_trimmed_by_age_and_length(trimming: Trimming) -> None:
    """Protocol records that nobody reads do not pile up."""
    await trimming.fill(keys.todo("torch"), 5, hours_ago=200)
    young = await trimming.fill(keys.todo("torch"), 20, hours_ago=1)
    assert (await trimming.trim()).removed == 5
    assert await trimming.left(keys.todo("torch")) == young
    assert await trimming.trim(max_length=7) == Trimmed(13, {})
    assert await trimming.left(keys.todo("torch")) == young[-7:]


async def test_what_a_group_has_consumed_goes_and_the_rest_stays(trimming: Trimming) -> None:
    """Old or too many: nothing past the last acknowledged entry."""
    entries = await trimming.fill(WORK, 20, hours_ago=200)
    await trimming.consume(WORK, GROUP, 12)
    trimmed = await trimming.trim()
    assert await trimming.left(WORK) == entries[12:]
    assert trimmed == Trimmed(12, {WORK: GROUP})
    assert (await trimming.trim(max_length=1)).removed == 0


async def test_an_entry_in_hand_stays_and_all_after_it(trimming: Trimming) -> None:
    """Delivered is not consumed: whoever has it in hand may die."""
    entries = await trimming.fill(WORK, 20, hours_ago=200)
    await trimming.consume(WORK, GROUP, 12, ack=5)
    assert (await trimming.trim()).removed == 5
    assert await trimming.left(WORK) == entries[5:]


async def test_the_slowest_group_counts_and_is_named(trimming: Trimming) -> None:
    """An outsider's group holds what it has not read, whatever ours has done."""
    entries = await trimming.fill(WORK, 20, hours_ago=200)
    await trimming.consume(WORK, GROUP, 20)
    await trimming.consume(WORK, "dashboard", 3)
    assert await trimming.trim() == Trimmed(3, {WORK: "dashboard"})
    assert await trimming.left(WORK) == entries[3:]
    await trimming.redis.xgroup_destroy(WORK, "dashboard")
    assert await trimming.trim() == Trimmed(17, {})


async def test_a_group_that_is_behind_by_young_entries_holds_nothing(trimming: Trimming) -> None:
    """What it has not read may stay anyway."""
    await trimming.fill(WORK, 2, hours_ago=300)
    await trimming.consume(WORK, "dashboard", 2)
    await trimming.fill(WORK, 3, hours_ago=1)
    assert await trimming.trim() == Trimmed(2, {})


async def test_a_group_that_has_read_nothing_holds_everything(trimming: Trimming) -> None:
    """Created at the stream's begin, it is owed all of it."""
    entries = await trimming.fill(WORK, 10, hours_ago=200)
    await trimming.redis.xgroup_create(WORK, b"\xff\xfe", id="0")
    assert await trimming.trim(max_length=1) == Trimmed(0, {WORK: "\ufffd\ufffd"})
    assert await trimming.left(WORK) == entries


@pytest.mark.parametrize("unread", [0, 1, 130, 260])
async def test_length_is_kept_exactly_where_consumption_allows_it(
    trimming: Trimming, unread: int
) -> None:
    """Down to the length when enough is consumed, else down to what is not; over several looks."""
    entries = await trimming.fill(WORK, 500)
    await trimming.consume(WORK, GROUP, 500 - unread)
    trimmed = await trimming.trim(max_length=200)
    kept = max(200, unread)
    assert await trimming.left(WORK) == entries[-kept:]
    assert trimmed.removed == 500 - kept
    assert (WORK in trimmed.held) == (unread > 200)


async def test_nothing_unconsumed_is_lost_while_everybody_is_busy(trimming: Trimming) -> None:
    """Adding, reading, acknowledging and trimming at once: the group sees every entry."""
    redis = trimming.redis
    await redis.xgroup_create(WORK, "outsider", id="0", mkstream=True)
    seen: list[str] = []

    async def add() -> None:
        for number in range(600):
            await redis.xadd(WORK, {"n": number})

    async def read() -> None:
        while len(seen) < 600:
            for _, entries in await redis.xreadgroup("outsider", "me", {WORK: ">"}, count=7):
                await asyncio.sleep(0)
                await redis.xack(WORK, "outsider", *(entry_id for entry_id, _ in entries))
                seen.extend(fields["n"] for _, fields in entries)

    async def trim() -> None:
        trimming.clock.ms = 4_000_000_000_000  # everything is old
        while len(seen) < 600:
            await trimming.trim(max_length=1)

    async with asyncio.timeout(30):
        await asyncio.gather(add(), read(), trim())
    assert seen == [str(number) for number in range(600)]
    await trimming.trim(max_length=1)
    assert await redis.xlen(WORK) <= 1


async def test_a_trim_that_is_repeated_removes_nothing_more(trimming: Trimming) -> None:
    """Its reply may have been lost."""
    await trimming.fill(WORK, 300)
    await trimming.consume(WORK, GROUP, 250)
    assert (await trimming.trim(max_length=100)).removed == 200
    assert (await trimming.trim(max_length=100)).removed == 0


async def test_keys_of_another_type_and_missing_streams_are_passed_over(
    trimming: Trimming,
) -> None:
    """Trimming creates nothing and fails on nothing that is not a stream."""
    await trimming.redis.set(WORK, "no stream")
    await trimming.fill(keys.insights("torch"), 3, hours_ago=200)
    assert await trimming.trim() == Trimmed(3, {})
    assert sorted(await trimming.redis.keys()) == sorted([WORK, keys.insights("torch")])


def test_every_stream_of_the_protocol_is_trimmed_and_none_of_our_own() -> None:
    """From the schema: a stream that is added there is found here."""
    names = protocol(["torch", "echo"])
    assert {WORK, keys.ENTERPRISE_METRICS, keys.todo("fleet"), keys.safety("echo")} <= set(names)
    assert set(consumed(["torch", "echo"])) <= set(names)
    assert not [name for name in names if name.startswith("novawf:") or "{" in name]


def test_consumption_stands_where_the_slowest_group_stands() -> None:
    """Ids compare as numbers, a pending entry counts before what was delivered after it."""
    ahead = Group("ahead", "100-5", None)
    behind = Group("behind", "100-9", "9-7")
    assert first_unconsumed([]) is None
    assert first_unconsumed([ahead]) == ("100-6", "ahead")
    assert first_unconsumed([ahead, behind]) == ("9-7", "behind")
