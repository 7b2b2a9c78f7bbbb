"""The store belongs to one supervisor: the real script on a real store, a clock the test moves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from novawf.clock import ManualClock
from novawf.errors import CorruptState, Fenced, StoreInUse
from novawf.store import keys
from novawf.store.ownership import LEASE_MS, Owner, Ownership
from novawf.tasks.claims import Claimant, fence_all, take_identity
from novawf.tasks.config import TaskSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis


def owner(run_id: str) -> Owner:
    return Owner(run_id, 4711, 99, "boot", "machine", f"/home/{run_id}")


def lives(_: Owner) -> bool:
    return False


def is_dead(_: Owner) -> bool:
    return True


@pytest.fixture
def first(redis: Redis, clock: ManualClock) -> Ownership:
    return Ownership(redis, clock, owner("first"))


@pytest.fixture
def second(redis: Redis, clock: ManualClock) -> Ownership:
    return Ownership(redis, clock, owner("second"))


async def test_the_second_is_refused_and_told_of_the_first(
    first: Ownership, second: Ownership
) -> None:
    assert await first.take(lives) == "free"
    with pytest.raises(StoreInUse, match=r"/home/first on machine \(pid 4711\)"):
        await second.take(lives)
    assert await first.renew()


async def test_records_of_children_are_dropped_by_the_owner_alone(
    redis: Redis, first: Ownership, second: Ownership
) -> None:
    await first.take(lives)
    await first.publish("child", "echo", "{}")
    assert not await second.publish("drop", "echo")
    assert await redis.hexists(keys.CHILDREN, "echo")
    for _ in range(2):
        assert await first.publish("drop", "echo")
        assert not await redis.hexists(keys.CHILDREN, "echo")


async def test_a_store_has_one_fleet_id_for_good(first: Ownership, second: Ownership) -> None:
    """Also when two supervisors ask at once, or one asks again."""
    assert await first.fleet_id("a") == "a"
    assert await second.fleet_id("b") == "a"
    assert await first.fleet_id("c") == "a"


async def test_a_repeat_after_a_lost_reply_takes_it_once_more(first: Ownership) -> None:
    await first.take(lives)
    assert await first.take(lives) == "own"


async def test_the_lease_of_a_dead_owner_is_not_waited_for(
    first: Ownership, second: Ownership
) -> None:
    await first.take(lives)
    assert await second.take(is_dead) == "dead"
    assert not await first.renew()


async def test_a_silent_owner_is_replaced_after_its_lease_and_hears_of_it(
    first: Ownership, second: Ownership, clock: ManualClock
) -> None:
    await first.take(lives)
    await first.renew()
    clock.advance(LEASE_MS)
    with pytest.raises(StoreInUse):
        await second.take(lives)
    clock.advance(1)
    assert await second.take(lives) == "lapsed"
    assert not await first.renew()
    await first.release()  # what it gives up is not its own any more
    assert await second.renew()


async def test_an_owner_known_to_be_dead_is_dead_however_long_it_was_silent(
    first: Ownership, second: Ownership, clock: ManualClock
) -> None:
    """Then nothing of it can be at work, and its tasks need not wait for their leases."""
    await first.take(lives)
    clock.advance(100 * LEASE_MS)
    assert await second.take(is_dead) == "dead"


async def test_renewing_keeps_it(first: Ownership, second: Ownership, clock: ManualClock) -> None:
    await first.take(lives)
    await first.renew()
    for _ in range(3):
        clock.advance(LEASE_MS - 1)
        assert await first.renew()
    with pytest.raises(StoreInUse):
        await second.take(lives)


async def test_an_owner_that_ended_leaves_it_free(first: Ownership, second: Ownership) -> None:
    await first.take(lives)
    await first.release()
    assert await second.take(lives) == "free"


async def test_a_store_that_was_emptied_is_taken_again_by_renewing(
    first: Ownership, second: Ownership, redis: Redis
) -> None:
    await first.take(lives)
    await redis.flushall()
    assert await first.renew()
    with pytest.raises(StoreInUse):
        await second.take(lives)


async def test_a_record_that_cannot_be_read_is_named(second: Ownership, redis: Any) -> None:
    await redis.hset(keys.FLEET_OWNER, mapping={"run": "x", "until": str(2**60), "about": "{"})
    with pytest.raises(CorruptState, match=keys.FLEET_OWNER):
        await second.take(lives)


async def test_fencing_all_refuses_every_nova_of_before(redis: Redis, clock: ManualClock) -> None:
    epoch = await take_identity(redis, "torch")
    nova = Claimant(redis, clock, TaskSettings(), "torch", epoch)
    await nova.claim()
    await fence_all(redis)
    with pytest.raises(Fenced):
        await nova.claim()


async def test_who_still_starts_is_given_more_time(
    first: Ownership, second: Ownership, clock: ManualClock
) -> None:
    await first.take(lives)
    clock.advance(LEASE_MS + 1)
    with pytest.raises(StoreInUse):
        await second.take(lives)


async def test_what_a_supervisor_says_is_written_while_the_store_is_its_own(
    first: Ownership, second: Ownership, redis: Any, clock: ManualClock
) -> None:
    """One that was replaced changes no record, and learns of it."""
    await first.take(lives)
    await redis.hset(keys.CHILDREN, "old", "of the run before")
    assert await first.publish("begin", "{}")
    assert await first.publish("child", "torch", "ours")
    clock.advance(LEASE_MS * 100)
    await second.take(lives)
    assert await second.publish("child", "torch", "theirs")
    for what, words in {"begin": ("x",), "fleet": ("x",), "child": ("torch", "x")}.items():
        assert not await first.publish(what, *words)  # type: ignore[arg-type] # not a Literal
    assert not await first.publish("forget")
    assert await redis.hgetall(keys.CHILDREN) == {"torch": "theirs"}
    assert await redis.hget(keys.FLEET, "document") == "{}"
    assert await second.publish("forget")
    assert not await redis.exists(keys.CHILDREN, keys.NOVAS, keys.FLEET)


def test_an_owner_of_an_earlier_version_is_read() -> None:
    """It knew no clusters."""
    fields = json.loads(owner("first").to_json())
    del fields["on_cluster"]
    assert Owner.from_json(json.dumps(fields)) == owner("first")
    del fields["pid"]
    with pytest.raises(CorruptState):
        Owner.from_json(json.dumps(fields))
