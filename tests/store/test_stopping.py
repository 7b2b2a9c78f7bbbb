"""An emergency stop: begun by one script, acknowledged by everybody or by the time that passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from losing_proxy import LosingProxy
from nova_world import DONE, Jobs, World
from waiting import until

from novawf.clock import monotonic_s
from novawf.errors import StoreUnreachable
from novawf.executors.base import NOT_BEGUN, Outcome, Report, Work
from novawf.safety.gate import Gate, Shut
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.workflow.acknowledging import LIMIT_S, Acknowledged, acknowledged


@pytest.fixture
async def world(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[World]:
    world = World(valkey_server, tmp_path)
    await world.open_gate()
    yield world
    await world.close()


async def stop(world: World, *, drains: bool = False) -> tuple[Shut, Acknowledged]:
    shut = await world.gate.shut("drill", "test", drains=drains)
    return shut, await acknowledged(world.redis, world.clock, shut)


async def old(nova: Any) -> None:
    """A life that began long ago: no start of the one before it can be open."""
    nova.stopping._says["born_ms"] = "1"


async def at_work(world: World, jobs: Jobs, task: str) -> None:
    await until(lambda: any(task == ran for ran, _ in jobs.ran), what=f"{task} in hand")


async def test_an_idle_nova_acknowledges_at_once(world: World) -> None:
    nova = await world.nova()
    await old(nova)
    world.run(nova)
    await until(lambda: world.redis.hexists(keys.NOVAS, "torch"))
    _, said = await stop(world)
    assert (said.spoke, said.silent) == (("torch",), ())
    assert said.waited_s < LIMIT_S / 2


async def test_running_work_is_ended_before_the_acknowledgement_and_handed_back(
    world: World,
) -> None:
    jobs = Jobs()
    task = await world.submit("hold")
    nova = await world.nova(jobs=jobs)
    await old(nova)
    world.run(nova)
    await at_work(world, jobs, task)
    _, said = await stop(world)
    assert said.spoke == ("torch",)
    assert jobs.cut == [task]

    async def is_back() -> bool:
        return (await world.status(task))[0] == "pending"

    await until(is_back)


async def test_a_stop_that_drains_is_acknowledged_beside_running_work(world: World) -> None:
    jobs = Jobs()
    task = await world.submit("hold")
    nova = await world.nova(jobs=jobs)
    await old(nova)
    world.run(nova)
    await at_work(world, jobs, task)
    behind = await world.submit()
    _, said = await stop(world, drains=True)
    assert said.spoke == ("torch",)
    jobs.go.set()
    assert (await world.ended(task))["status"] == "completed"
    assert await world.status(behind) == ("pending", None)
    assert jobs.cut == []


async def test_a_plain_stop_ends_what_a_draining_one_let_finish(world: World) -> None:
    jobs = Jobs()
    task = await world.submit("hold")
    nova = await world.nova(jobs=jobs)
    await old(nova)
    world.run(nova)
    await at_work(world, jobs, task)
    first, _ = await stop(world, drains=True)
    second, said = await stop(world)
    assert (second.drains, second.changed, said.spoke) == (False, True, ("torch",))
    assert second.number > first.number
    assert jobs.cut == [task]


@pytest.mark.parametrize("drains", [True, False])
async def test_a_heartbeat_tells_of_a_stop_whose_order_was_lost(world: World, drains: bool) -> None:
    jobs = Jobs()
    task = await world.submit("hold")
    nova = await world.nova(jobs=jobs)
    working = asyncio.ensure_future(_work(nova))
    await at_work(world, jobs, task)
    await world.gate.shut("drill", "test", drains=drains)
    await world.redis.delete(keys.inbox("torch"))
    beat = await nova.heartbeat.beat()
    assert (beat.stopped, beat.drains) == (True, drains)
    if drains:
        assert nova.steps.attempt is not None
        assert not nova.steps.attempt.cancel.is_set()
        jobs.go.set()
    await working
    assert jobs.cut == ([] if drains else [task])


async def _work(nova: Any) -> None:
    while nova.steps.attempt is None:
        await nova.cycle.execute_cycle()
    await nova.cycle.execute_cycle()


async def test_who_says_nothing_is_waited_for_no_longer_than_a_start_may_take(
    world: World,
) -> None:
    await world.nova()  # has the name, and never runs: like one that was stopped by a signal
    await world.redis.hset(keys.NOVAS, "torch", "{}")
    _, said = await stop(world)
    assert said.silent == ("torch",)
    assert LIMIT_S <= said.waited_s < LIMIT_S + 2


async def test_a_young_life_does_not_speak_for_the_one_before_it(world: World) -> None:
    """The one before may have been killed a moment ago, with a start on its way."""
    await world.nova()
    nova = await world.nova()
    world.run(nova)
    await until(lambda: world.redis.hexists(keys.NOVAS, "torch"))
    _, said = await stop(world)
    assert said.spoke == ("torch",)
    assert said.at_s >= nova.born_ms / 1000 + LIMIT_S - 0.1


async def test_words_about_another_stop_or_of_another_life_do_not_count(world: World) -> None:
    nova = await world.nova()
    await world.redis.hset(keys.NOVAS, "torch", "{}")
    shut = await world.gate.shut("drill", "test")
    for number, epoch in ((shut.number - 1, nova.epoch), (shut.number, nova.epoch - 1)):
        await world.redis.xadd(
            keys.STOP_WORDS, {"nova": "torch", "n": number, "epoch": epoch, "born_ms": 1}
        )
    said = await acknowledged(world.redis, world.clock, shut)
    assert (said.spoke, said.silent) == ((), ("torch",))


async def test_a_repeat_after_a_lost_reply_is_the_same_stop(
    world: World, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    proxy = LosingProxy(valkey_server, tmp_path)
    await proxy.start()
    client = connect(proxy.address, name="lossy")
    try:
        gate = Gate(client, world.clock, proxy.address)
        await gate.shut("warm-up", "test")
        await gate.clear_stop("test")
        proxy.lose("lost-reply")
        with pytest.raises(StoreUnreachable):
            await gate.shut("lost-reply", "test")
        view = await world.gate.read()
        assert (view.stopped, view.stop_reason) == (True, "lost-reply")  # it took place
        again = await gate.shut("again", "test")
        assert not again.changed
        assert await world.gate.read() == view
    finally:
        await client.aclose()
        await proxy.close()


async def test_a_store_that_goes_away_meanwhile_leaves_it_to_the_time(
    world: World, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    await world.nova()
    await world.redis.hset(keys.NOVAS, "torch", "{}")
    proxy = LosingProxy(valkey_server, tmp_path)
    await proxy.start()
    client = connect(proxy.address, name="lossy")
    try:
        shut = await Gate(client, world.clock, proxy.address).shut("drill", "test")
        proxy.lose("XREAD", "request")
        began_s = monotonic_s()
        said = await acknowledged(client, world.clock, shut)
        assert said.silent == ("torch",)
        assert monotonic_s() - began_s >= LIMIT_S
    finally:
        await client.aclose()
        await proxy.close()


async def test_two_stops_at_once_are_one(world: World) -> None:
    nova = await world.nova()
    await old(nova)
    world.run(nova)
    await until(lambda: world.redis.hexists(keys.NOVAS, "torch"))
    (one, said), (other, also) = await asyncio.gather(stop(world), stop(world))
    assert one.number == other.number
    assert one.changed != other.changed
    assert said.spoke == also.spoke == ("torch",)


@pytest.mark.parametrize("key", [keys.NOVAS, keys.inbox("torch"), keys.STOP_WORDS, keys.CHILDREN])
async def test_a_key_of_another_type_keeps_no_gate_open(world: World, key: str) -> None:
    nova = await world.nova()
    await world.redis.hset(keys.NOVAS, "torch", "{}")
    await world.redis.delete(key)
    await world.redis.set(key, "foreign")
    shut, said = await stop(world)
    assert (await world.gate.read()).stopped
    assert shut.changed
    assert said.waited_s < LIMIT_S + 2.5
    world.novas.remove(nova)
    await world.redis.delete(key)
    await nova._close()


async def late_once(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
    """As an executor answers whose worker got the work too late, the first time."""
    if work.start.by_s not in late_once.seen:  # type: ignore[attr-defined]
        late_once.seen.append(work.start.by_s)  # type: ignore[attr-defined]
        if len(late_once.seen) == 1:  # type: ignore[attr-defined]
            work.start.by_s = 0.0
            return NOT_BEGUN
    return DONE


async def test_what_came_too_late_begins_once_the_gate_lets_it_through_again(world: World) -> None:
    late_once.seen = []  # type: ignore[attr-defined]
    jobs = Jobs(late=late_once)
    task = await world.submit("late")
    nova = await world.nova(jobs=jobs)
    world.run(nova)
    assert (await world.ended(task))["status"] == "completed"
    assert jobs.ran == [(task, 1), (task, 1)]


@pytest.mark.parametrize("drains", [True, False])
async def test_what_came_too_late_is_handed_back_when_the_gate_was_shut_meanwhile(
    world: World, drains: bool
) -> None:
    """Its attempt is not used up, also of a task that runs at most once."""

    async def late(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        await world.gate.shut("drill", "test", drains=drains)
        await world.redis.delete(keys.inbox("torch"))
        work.start.by_s = 0.0
        return NOT_BEGUN

    jobs = Jobs(late=late)
    task = await world.submit("late", retries=0)
    nova = await world.nova(jobs=jobs)
    world.run(nova)
    await at_work(world, jobs, task)

    async def is_back() -> bool:
        return (await world.status(task))[0] == "pending"

    await until(is_back)
    assert jobs.ran == [(task, 1)]


async def test_a_nova_that_pauses_goes_on_at_once_when_the_stop_is_cleared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novawf.workflow.steps.PAUSED_LOOK_S", 60)
    nova = await world.nova()
    await old(nova)
    world.run(nova)
    await until(lambda: world.redis.hexists(keys.NOVAS, "torch"))
    await stop(world)
    await until(lambda: nova.data.current_state == "safety_pause")
    task = await world.submit()
    await world.gate.clear_stop("test")
    await world.ended(task)
