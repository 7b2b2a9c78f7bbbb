"""What a Nova does, step by step, when replies get lost, gates are shut and work goes wrong.

The steps are made one at a time, without heartbeats, so each loss hits exactly the call it is
meant for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from losing_proxy import LosingProxy
from nova_world import DONE, Jobs, World, step_until
from valkey_process import running_valkey

from novawf.executors.base import Outcome, Report, Work
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.store.scripts import Script
from novawf.tasks import claims
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.ending import Ending
from novawf.workflow.nova import NovaRuntime
from novawf.workflow.states import Event, State


@pytest.fixture
async def world(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[World]:
    world = World(valkey_server, tmp_path)
    await world.open_gate()
    for script in (claims._CLAIM, claims._FINISH):
        await world.redis.script_load(script.source)
    yield world
    await world.close()


@pytest.fixture
async def proxy(world: World) -> AsyncIterator[LosingProxy]:
    proxy = LosingProxy(world.store, world.directory)
    await proxy.start()
    yield proxy
    await proxy.close()


async def other_claims(world: World, name: str = "echo") -> Claim:
    epoch = await take_identity(world.redis, name)
    other = Claimant(world.redis, world.clock, world.settings, name, epoch)
    claim = await other.claim()
    assert isinstance(claim, Claim)
    return claim


async def drained(nova: NovaRuntime) -> None:
    nova.drain(60)
    for _ in range(30):
        if nova.steps.idle:
            return
        await nova.cycle.execute_cycle()
    raise AssertionError(f"still busy in {nova.data.current_state}")


@pytest.mark.parametrize("what", ["reply", "request"])
async def test_a_lost_claim_costs_no_second_attempt(
    world: World, proxy: LosingProxy, what: Any
) -> None:
    first, second = await world.submit(), await world.submit()
    jobs = Jobs()
    nova = await world.nova(jobs=jobs, store=proxy.address)
    proxy.lose(claims._CLAIM.sha1, what)
    await step_until(nova, Event.FAILED)
    assert proxy.lost.is_set()
    await step_until(nova, Event.NO_WORK)
    assert jobs.ran == [(first, 1), (second, 1)]
    assert (await world.tracker.counts())["completed"] == 2


@pytest.mark.parametrize("what", ["reply", "request"])
async def test_a_lost_finish_is_recorded_once_and_brings_the_next_task(
    world: World, proxy: LosingProxy, what: Any
) -> None:
    first, second = await world.submit(), await world.submit()
    jobs = Jobs()
    nova = await world.nova(jobs=jobs, store=proxy.address)
    proxy.lose(claims._FINISH.sha1, what)
    await step_until(nova, Event.FAILED)
    await step_until(nova, Event.NO_WORK)
    assert jobs.ran == [(first, 1), (second, 1)]
    assert await world.redis.xlen(keys.completed("torch")) == 2


async def lose_the_finish_of_the_first_of_two(
    world: World, proxy: LosingProxy, **first: Any
) -> tuple[NovaRuntime, Jobs, str, str]:
    """Afterwards the second is in the Nova's hands and the Nova does not know."""
    task_ids = await world.submit(**first), await world.submit(retries=0)
    jobs = Jobs(fails=fails)
    nova = await world.nova(jobs=jobs, store=proxy.address)
    proxy.lose(claims._FINISH.sha1)
    await step_until(nova, Event.FAILED)
    await asyncio.wait_for(proxy.lost.wait(), 5)
    assert await world.status(task_ids[1]) == ("in_progress", None)
    return nova, jobs, *task_ids


async def fails(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
    return Outcome(ok=False, cause="failed", error="exit code 1")


async def test_a_drain_gives_back_what_a_lost_finish_had_claimed(
    world: World, proxy: LosingProxy
) -> None:
    nova, jobs, first, second = await lose_the_finish_of_the_first_of_two(world, proxy)
    await drained(nova)
    assert await world.status(first) == ("completed", "succeeded")
    assert await world.status(second) == ("pending", None)
    assert len(jobs.ran) == 1
    assert (await other_claims(world)).task_id == second


async def test_a_pause_gives_back_what_a_lost_finish_had_claimed(
    world: World, proxy: LosingProxy
) -> None:
    nova, _, first, second = await lose_the_finish_of_the_first_of_two(world, proxy)
    await world.gate.pause("torch")
    await step_until(nova, Event.UNSAFE)
    assert await world.status(first) == ("completed", "succeeded")
    assert await world.status(second) == ("pending", None)
    assert (await other_claims(world)).task_id == second


async def test_a_task_claimed_by_a_lost_finish_is_found_though_the_finished_one_is_gone(
    world: World, proxy: LosingProxy
) -> None:
    """The first call arrived: the task failed, waits for its retry, and another Nova has it."""
    world.settings = world.settings.model_copy(update={"backoff_base_s": 0.0})
    nova, jobs, first, second = await lose_the_finish_of_the_first_of_two(world, proxy, job="fails")
    assert (await other_claims(world)).task_id == first
    await step_until(nova, Event.NO_WORK)
    assert jobs.ran == [(first, 1), (second, 1)]
    assert await world.status(first) == ("in_progress", None)
    assert await world.status(second) == ("completed", "succeeded")


@pytest.mark.parametrize("how", ["stop", "drain"])
async def test_what_a_lost_claim_took_goes_back_unspent(
    world: World, proxy: LosingProxy, how: str
) -> None:
    task_id = await world.submit(retries=0)
    jobs = Jobs()
    nova = await world.nova(jobs=jobs, store=proxy.address)
    proxy.lose(claims._CLAIM.sha1)
    await step_until(nova, Event.FAILED)
    if how == "stop":
        await world.gate.stop("drill", "test")
        await step_until(nova, Event.UNSAFE)
        await step_until(nova, Event.UNSAFE)  # the first one led to the pause
    else:
        await drained(nova)
    assert await world.status(task_id) == ("pending", None)
    assert jobs.ran == []
    assert nova.steps.idle
    if how == "stop":
        await world.gate.clear_stop("test")
    assert (await other_claims(world)).task_id == task_id


async def test_a_wake_call_that_fails_loses_no_task(world: World, proxy: LosingProxy) -> None:
    """The finish frees a task pinned to echo, and telling echo is what fails."""
    first = await world.submit(priority="critical")
    await world.submit(nova="echo", after=[first])
    second = await world.submit()
    jobs = Jobs()
    nova = await world.nova(jobs=jobs, store=proxy.address)
    proxy.lose("LPUSH", "request")
    await step_until(nova, Event.NO_WORK)
    assert proxy.lost.is_set()
    assert jobs.ran == [(first, 1), (second, 1)]


async def test_a_task_taken_but_not_begun_goes_back_when_a_drain_begins(world: World) -> None:
    first, second = await world.submit("steady"), await world.submit(retries=0)
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    await step_until(nova, Event.RECORDED)
    assert await world.status(second) == ("in_progress", None)
    await drained(nova)
    assert jobs.ran == [(first, 1)]
    assert await world.status(second) == ("pending", None)


async def test_an_unsafe_verdict_is_waited_out_in_the_pause(world: World) -> None:
    """A heartbeat must know of it too, or the Nova spins between claim and heartbeat."""
    await world.open_gate(good=False, reason="the store is full")
    nova = await world.nova()
    await step_until(nova, Event.UNSAFE)
    assert nova.data.current_state is State.SAFETY_PAUSE
    began_s = time.monotonic()
    assert await nova.cycle.execute_cycle() is Event.UNSAFE
    assert time.monotonic() - began_s > 0.3
    assert nova.verdict.unsafe_reason() == "unsafe: the store is full"
    await world.open_gate()
    assert await nova.cycle.execute_cycle() is Event.SAFE


@pytest.mark.parametrize("script", [claims._CLAIM, claims._BEAT])
async def test_nothing_starts_after_a_stop_that_overtook_a_reply(
    world: World, script: Script
) -> None:
    """The store answered before the stop, and the order is read before the answer is."""
    first, second = await world.submit("steady"), await world.submit(retries=0)
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    if script is claims._BEAT:
        await step_until(nova, Event.RECORDED)  # the second is in its hands, and not begun
    else:
        await step_until(nova, Event.CHECKED)
    began = list(jobs.ran)
    execute = nova.redis.execute_command

    async def overtaken(*args: Any, **options: Any) -> Any:
        reply = await execute(*args, **options)
        if script.sha1 in args and not (await world.gate.read()).stopped:
            await world.gate.stop("drill", "test")
            nova._obey({"op": "stop"})
        return reply

    nova.redis.execute_command = overtaken  # type: ignore[method-assign]
    if script is claims._BEAT:
        nova.verdict.learn(await nova.heartbeat.beat())
    await step_until(nova, Event.UNSAFE)
    await step_until(nova, Event.UNSAFE)  # the first one led to the pause
    assert jobs.ran == began
    assert await world.status(second) == ("pending", None)
    nova.redis.execute_command = execute  # type: ignore[method-assign]
    await world.gate.clear_stop("test")
    world.run(nova)
    for task_id in (first, second):
        assert (await world.ended(task_id))["status"] == "completed"


async def test_a_paused_nova_passes_its_wake_token_on(world: World) -> None:
    """Whether a claim told it of the pause or a heartbeat did."""
    nova = await world.nova()
    await world.redis.delete(keys.WAKE_ANY)
    await world.redis.lpush(keys.WAKE_ANY, "1")
    await step_until(nova, Event.NO_WORK)
    assert await world.redis.llen(keys.WAKE_ANY) == 0
    await world.gate.pause("torch")
    nova.verdict.learn(await nova.heartbeat.beat())
    await step_until(nova, Event.UNSAFE)
    await step_until(nova, Event.UNSAFE)
    assert await world.redis.llen(keys.WAKE_ANY) == 1


async def test_an_executor_that_raises_costs_the_task_an_attempt_and_nothing_else(
    world: World,
) -> None:
    async def broken(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        raise RuntimeError("a fault of ours")

    task_id, after = await world.submit("broken", retries=0), await world.submit()
    nova = await world.nova(jobs=Jobs(broken=broken))
    await step_until(nova, Event.FAILED)
    assert "a fault of ours" in nova.cycle.last_error
    await step_until(nova, Event.NO_WORK)
    assert await world.status(task_id) == ("blocked", "failed")
    assert await world.status(after) == ("completed", "succeeded")


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(ok=False, cause="failed", error="not text: \udc80"),
        Outcome(ok=True, results={"a": object()}),
        Outcome(ok=True, exit_code=0, stdout_tail="\udcff"),
    ],
)
async def test_an_outcome_that_cannot_be_written_as_it_is_is_recorded_all_the_same(
    world: World, outcome: Outcome
) -> None:
    async def odd(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        return outcome

    task_id = await world.submit("odd", retries=0)
    nova = await world.nova(jobs=Jobs(odd=odd))
    await step_until(nova, Event.RECORDED)
    status = "completed" if outcome.ok else "blocked"
    assert (await world.tracker.task(task_id))["status"] == status


async def test_an_attempt_cut_short_before_it_began_never_runs(world: World) -> None:
    task_id = await world.submit(retries=0)
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    await step_until(nova, Event.WORK_FOUND)
    nova._obey({"op": "stop"})
    await step_until(nova, Event.RECORDED)
    assert jobs.ran == []
    assert await world.status(task_id) == ("pending", None)


@pytest.mark.parametrize(("retries", "then"), [(1, ("pending", None)), (0, ("blocked", "failed"))])
async def test_a_task_without_retries_runs_at_most_once_though_it_was_cut_short(
    world: World, retries: int, then: tuple[str, str | None]
) -> None:
    task_id = await world.submit("hold", retries=retries)
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    await step_until(nova, Event.WORK_FOUND)
    execution = asyncio.create_task(nova.cycle.execute_cycle())
    while not jobs.ran:
        await asyncio.sleep(0)
    nova._interrupt("handed_back")
    nova.steps.draining = True
    await execution
    await step_until(nova, Event.RECORDED)
    assert await world.status(task_id) == then


async def test_a_cancellation_outlives_an_attempt_that_was_stopped(world: World) -> None:
    task_id = await world.submit("hold")
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    await step_until(nova, Event.WORK_FOUND)
    execution = asyncio.create_task(nova.cycle.execute_cycle())
    while not jobs.ran:
        await asyncio.sleep(0)
    nova._interrupt("stopped")
    assert await world.queue.cancel(task_id) == "cancelling"
    await execution
    await step_until(nova, Event.RECORDED)
    assert await world.status(task_id) == ("blocked", "cancelled")


async def test_a_lost_tasks_outcome_is_dropped(world: World) -> None:
    task_id = await world.submit("hold")
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    await step_until(nova, Event.WORK_FOUND)
    execution = asyncio.create_task(nova.cycle.execute_cycle())
    while not jobs.ran:
        await asyncio.sleep(0)
    await world.queue.release_all("test")
    assert (await other_claims(world)).attempt == 2
    jobs.go.set()
    await execution
    await step_until(nova, Event.RECORDED)
    assert await world.status(task_id) == ("in_progress", None)
    assert await world.redis.xlen(keys.completed("torch")) == 0


async def test_a_drain_while_the_store_is_away_waits_calmly_and_records_later(
    valkey_binary: Path, tmp_path: Path
) -> None:
    with ExitStack() as server:
        options = ("--appendonly", "yes", "--appendfsync", "always")
        address = server.enter_context(running_valkey(valkey_binary, tmp_path, *options))
        world = World(address, tmp_path)
        await world.open_gate()
        task_id = await world.submit()
        nova = await world.nova()
        await step_until(nova, Event.WORK_ENDED)
        server.close()
        await step_until(nova, Event.FAILED)
        nova.drain(60)
        cycles = nova.data.total_cycles_completed
        until_s = time.monotonic() + 0.6
        while time.monotonic() < until_s:
            await nova.cycle.execute_cycle()
        assert nova.data.total_cycles_completed - cycles < 20
        server.enter_context(running_valkey(valkey_binary, tmp_path, *options))
        await drained(nova)
        assert await world.status(task_id) == ("completed", "succeeded")
        await world.close()


async def test_progress_comes_in_order_and_before_the_end(world: World) -> None:
    async def tells(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        for percent in range(0, 101, 5):
            report.progress(percent, f"at {percent}")
        return DONE

    await world.submit("tells")
    nova = await world.nova(jobs=Jobs(tells=tells))
    await step_until(nova, Event.RECORDED)
    records = await world.redis.xrange(keys.progress("torch"))
    told = [record["update"] for _, record in records if record["update"].startswith("at ")]
    assert told == [f"at {percent}" for percent in range(0, 101, 5)]


async def test_a_claim_of_a_new_life_does_not_find_the_dead_lives_task(world: World) -> None:
    """Both lives call it their first claim, and the dead one's task is not free yet."""
    first, second = await world.submit(), await world.submit()
    epoch = await take_identity(world.redis, "torch")
    dead = Claimant(world.redis, world.clock, world.settings, "torch", epoch)
    claim = await dead.claim()
    assert isinstance(claim, Claim)
    assert claim.task_id == first
    nova = await world.nova()
    await step_until(nova, Event.NO_WORK)
    assert await world.status(first) == ("in_progress", None)
    assert await world.status(second) == ("completed", "succeeded")
    with pytest.raises(claims.Fenced):
        await dead.finish(claim, Ending("completed", "succeeded"), result="{}", detail="")
