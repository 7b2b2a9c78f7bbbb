"""A whole Nova at work on a real store: heartbeats, orders, drains, and a store that goes away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from nova_world import DONE, Jobs, World
from valkey_process import running_valkey
from waiting import until

from novawf.errors import Fenced
from novawf.executors.base import Outcome, Report, Work
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.tasks.claims import take_identity
from novawf.workflow.config import PhaseSettings
from novawf.workflow.nova import NovaRuntime
from novawf.workflow.phases import Phase
from novawf.workflow.state_data import StateData
from novawf.workflow.states import State

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
async def world(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[World]:
    world = World(valkey_server, tmp_path)
    await world.open_gate()
    yield world
    await world.close()


async def at_work(jobs: Jobs, number: int = 1) -> None:
    await until(lambda: len(jobs.ran) >= number, what=f"{number} pieces of work begun")


async def asleep(world: World, nova: NovaRuntime) -> None:
    """Until the Nova waits for work by its blocking read."""

    async def reads() -> bool:
        clients = await world.redis.client_list()
        name = f"nova-{nova.config.name}-work"
        return any(c["name"] == name and "b" in c["flags"] for c in clients)

    await until(reads, what="the blocking read")


async def test_work_is_done_as_it_comes(world: World) -> None:
    """A Nova that waits for work starts it at once, not with its next look."""
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    world.run(nova)
    await asleep(world, nova)
    began_s = time.monotonic()
    view = await world.ended(await world.submit())
    assert time.monotonic() - began_s < 1.0
    assert (view["status"], view["attempts"], view["assignee"]) == ("completed", 1, "torch")


async def test_a_result_is_not_dropped_when_the_store_is_away_as_the_work_ends(
    valkey_binary: Path, tmp_path: Path
) -> None:
    with ExitStack() as server:
        address = server.enter_context(running_valkey(valkey_binary, tmp_path, *DURABLE))
        world = World(address, tmp_path)
        await world.open_gate()
        first, second = await world.submit("hold", retries=0), await world.submit()
        jobs = Jobs()
        nova = await world.nova(jobs=jobs)
        running = world.run(nova)
        await at_work(jobs)
        server.close()
        jobs.go.set()
        await until(lambda: nova.data.current_state is State.ERROR_RECOVERY, what="the recovery")
        server.enter_context(running_valkey(valkey_binary, tmp_path, *DURABLE))
        assert (await world.ended(first))["status"] == "completed"
        assert (await world.ended(second))["attempts"] == 1
        assert not running.done()
        assert jobs.ran == [(first, 1), (second, 1)]
        await world.close()


async def test_work_whose_wake_token_was_lost_is_seen_by_a_heartbeat(
    redis: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    world = World(valkey_server, tmp_path, idle_wait_s=0.3)
    await world.open_gate()
    nova = await world.nova()
    world.run(nova)
    await asleep(world, nova)
    await world.gate.pause()
    task_id = await world.submit()
    await redis.delete(keys.WAKE_ANY)  # as if somebody had taken it, and died
    await redis.hdel(keys.GATE, "paused")  # and nobody tells of the end of the pause
    assert (await world.ended(task_id, 5))["status"] == "completed"
    await world.close()


async def test_an_idle_nova_asks_the_queue_no_more_than_it_must(
    redis: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    world = World(valkey_server, tmp_path, idle_wait_s=0.05)
    await world.open_gate()
    nova = await world.nova()
    world.run(nova)
    await asleep(world, nova)
    before = nova.claimant._claims
    cycles = nova.data.total_cycles_completed
    await until(lambda: nova.data.total_cycles_completed > cycles + 20, what="twenty cycles")
    assert nova.claimant._claims <= before + 1
    await world.close()


@pytest.mark.parametrize("key", [keys.wake("torch"), keys.progress("torch")])
async def test_a_nova_that_fails_at_each_step_does_not_spin(world: World, key: str) -> None:
    """A key of another type stops it; it asks again at leisure, and goes on once that is gone."""
    await world.redis.set(key, "of another type")
    nova = await world.nova()
    world.run(nova)
    first_id = await world.submit()
    over_s = time.monotonic() + 1
    await until(lambda: time.monotonic() > over_s, what="a second")
    assert nova.data.total_cycles_completed < 60
    await world.redis.delete(key)
    for task_id in (first_id, await world.submit()):
        assert (await world.ended(task_id))["attempts"] == 1


async def test_work_goes_on_when_all_connections_are_cut(world: World) -> None:
    """And orders are heard again afterwards."""
    task_id = await world.submit("hold", retries=0)
    jobs = Jobs()
    world.run(await world.nova(jobs=jobs))
    await at_work(jobs)
    await world.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await world.queue.cancel(task_id) == "cancelling"
    assert (await world.ended(task_id))["outcome"] == "cancelled"
    await world.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert (await world.ended(await world.submit()))["attempts"] == 1


async def test_a_drain_lets_work_end(world: World) -> None:
    first, second = await world.submit("hold", retries=0), await world.submit()
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    running = world.run(nova)
    await at_work(jobs)
    nova.drain(30)
    jobs.go.set()
    assert await asyncio.wait_for(running, 5) == "drained"
    assert await world.status(first) == ("completed", "succeeded")
    assert await world.status(second) == ("pending", None)


async def test_a_drain_hands_back_what_does_not_end_in_time(world: World) -> None:
    task_id = await world.submit("hold")
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    running = world.run(nova)
    await at_work(jobs)
    nova.drain(0.1)
    assert await asyncio.wait_for(running, 5) == "drained"
    assert jobs.cut == [task_id]
    view = await world.tracker.task(task_id)
    assert (view["status"], view["attempts"], view["attempts_allowed"]) == ("pending", 1, 5)


@pytest.mark.parametrize("paused", [False, True])
async def test_an_idle_nova_drains_at_once(world: World, paused: bool) -> None:
    nova = await world.nova()
    running = world.run(nova)
    await asleep(world, nova)
    if paused:
        await world.gate.pause()
        await world.redis.lpush(keys.WAKE_ANY, "1")
        await until(lambda: nova.data.current_state is State.SAFETY_PAUSE, what="the pause")
    nova.drain(30)
    assert await asyncio.wait_for(running, 2) == "drained"


async def test_a_stop_ends_work_and_a_clear_lets_it_run_again(world: World) -> None:
    task_id = await world.submit("hold")
    jobs = Jobs()
    world.run(await world.nova(jobs=jobs))
    await at_work(jobs)
    await until(lambda: world.redis.hexists(keys.NOVAS, "torch"), what="the first heartbeat")
    await world.gate.stop("drill", "test")
    await until(lambda: jobs.cut, what="the end of the work")
    await until(lambda: _is_pending(world, task_id), what="the task's return")
    await world.gate.clear_stop("test")
    jobs.go.set()
    view = await world.ended(task_id)
    assert (view["status"], view["attempts"], view["attempts_allowed"]) == ("completed", 2, 5)


async def _is_pending(world: World, task_id: str) -> bool:
    return (await world.status(task_id))[0] == "pending"


async def test_work_that_wakes_a_paused_nova_goes_to_another_at_once(world: World) -> None:
    """The paused one is the first in the queue of sleepers, so it gets the token."""
    torch_jobs, echo_jobs = Jobs(), Jobs()
    torch, echo = await world.nova("torch", torch_jobs), await world.nova("echo", echo_jobs)
    world.run(torch)
    await asleep(world, torch)
    world.run(echo)
    await asleep(world, echo)
    await world.gate.pause("torch")
    torch.heartbeat.now.set()
    await until(lambda: torch.verdict.unsafe_reason() == "paused", what="a heartbeat of the pause")
    began_s = time.monotonic()
    await world.ended(await world.submit())
    assert time.monotonic() - began_s < 1.0
    assert torch_jobs.ran == []
    assert len(echo_jobs.ran) == 1


async def test_an_unsafe_verdict_is_waited_out_without_load_on_the_store(world: World) -> None:
    nova = await world.nova()
    await world.open_gate(good=False)
    world.run(nova)
    await until(lambda: nova.data.current_state is State.SAFETY_PAUSE, what="the pause")
    before = nova.data.total_cycles_completed
    task_id = await world.submit()
    await world.redis.blpop(["no such list"], 1.0)
    assert nova.data.total_cycles_completed - before < 10
    assert await world.status(task_id) == ("pending", None)
    await world.open_gate()
    await world.ended(task_id)


async def test_a_nova_whose_identity_went_to_another_ends_its_work_and_itself(
    world: World,
) -> None:
    task_id = await world.submit("hold")
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    running = world.run(nova)
    await at_work(jobs)
    await take_identity(world.redis, "torch")
    nova.heartbeat.now.set()
    with pytest.raises(Fenced):
        await asyncio.wait_for(running, 5)
    assert jobs.cut == [task_id]
    assert await world.status(task_id) == ("in_progress", None)


async def test_an_idle_nova_whose_identity_went_to_another_ends(world: World) -> None:
    nova = await world.nova()
    running = world.run(nova)
    await asleep(world, nova)
    await take_identity(world.redis, "torch")
    nova.heartbeat.now.set()
    with pytest.raises(Fenced):
        await asyncio.wait_for(running, 5)


async def test_a_nova_that_lost_its_task_ends_the_work_and_takes_the_next(world: World) -> None:
    lost, following = await world.submit("hold", priority="critical"), await world.submit()
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    world.run(nova)
    await at_work(jobs)
    await world.redis.hset(keys.GATE, "paused", "1")  # so that it does not take the lost one again
    await world.queue.release_all("test")
    nova.heartbeat.now.set()
    await until(lambda: jobs.cut == [lost], what="the end of the work")
    await world.queue.cancel(lost)
    await world.gate.resume()
    assert (await world.ended(following))["status"] == "completed"
    assert await world.redis.xlen(keys.completed("torch")) == 1


async def test_the_lease_of_long_work_is_renewed(
    redis: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    world = World(valkey_server, tmp_path, lease_s=0.3)
    await world.open_gate()
    task_id = await world.submit("hold", retries=0)
    jobs = Jobs()
    world.run(await world.nova(jobs=jobs))
    await at_work(jobs)
    first_ms = await world.redis.zscore(keys.LEASES, task_id)

    async def renewed_thrice() -> bool:
        assert await world.queue.release_expired() == []
        return bool(await world.redis.zscore(keys.LEASES, task_id) > first_ms + 900)

    await until(renewed_thrice, what="the renewals")
    jobs.go.set()
    assert (await world.ended(task_id))["attempts"] == 1
    await world.close()


async def test_a_user_cancels_work_in_hand(world: World) -> None:
    task_id = await world.submit("hold")
    jobs = Jobs()
    world.run(await world.nova(jobs=jobs))
    await at_work(jobs)
    await world.queue.cancel(task_id)
    assert (await world.ended(task_id))["outcome"] == "cancelled"
    assert jobs.cut == [task_id]


@pytest.mark.parametrize("order", [b"\xff\xfe", "no JSON", "[]", "{}", '{"op":"dance"}'])
async def test_an_order_that_cannot_be_read_makes_nobody_deaf(world: World, order: Any) -> None:
    task_id = await world.submit("hold")
    jobs = Jobs()
    world.run(await world.nova(jobs=jobs))
    await at_work(jobs)
    await world.redis.rpush(keys.inbox("torch"), order)
    await world.redis.rpush(
        keys.inbox("torch"), f'{{"op":"cancel","task":"{task_id}","epoch":"1"}}'
    )
    await until(lambda: jobs.cut, timeout_s=2.0, what="the cancellation by order alone")


async def test_an_order_for_an_earlier_attempt_is_not_obeyed(world: World) -> None:
    task_id = await world.submit("hold")
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    world.run(nova)
    await at_work(jobs)
    for op in (f'{{"op":"cancel","task":"{task_id}","epoch":"7"}}', '{"op":"cancel","task":"X"}'):
        await world.redis.rpush(keys.inbox("torch"), op)
    await until(lambda: _is_empty(world, keys.inbox("torch")), what="the reading of the orders")
    jobs.go.set()
    assert (await world.ended(task_id))["status"] == "completed"


async def _is_empty(world: World, key: str) -> bool:
    return not await world.redis.exists(key)


async def test_what_work_reports_is_posted(world: World) -> None:
    async def tells(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        report.progress(50, "half")
        report.progress(None, "not text: \udc80")
        report.progress(100, "all")
        return DONE

    world.run(await world.nova(jobs=Jobs(tells=tells)))
    await world.ended(await world.submit("tells"))
    records = [record for _, record in await world.redis.xrange(keys.progress("torch"))]
    told = [(r["update"], r["progress_percentage"]) for r in records]
    assert told[0][0] == "attempt 1 started"
    assert told[1] == ("half", "50")
    assert told[-1] == ("all", "100")


async def test_the_phase_changes_after_its_share_of_tasks(world: World) -> None:
    nova = await world.nova(phases=PhaseSettings(tasks_per_phase=2))
    world.run(nova)
    await world.ended(await world.submit())
    assert nova.data.current_phase is Phase.WORK_1
    await world.ended(await world.submit())
    await until(lambda: nova.data.current_phase is Phase.WORK_2, what="the other phase")
    await asleep(world, nova)
    assert (nova.data.tasks_completed_in_phase, nova.data.work_phases_completed) == (0, 1)


async def test_the_next_life_goes_on_from_what_was_kept(world: World) -> None:
    first = await world.nova(phases=PhaseSettings(tasks_per_phase=2))
    running = world.run(first)
    for _ in range(3):
        await world.ended(await world.submit())
    await asleep(world, first)

    async def published() -> bool:
        state = await world.redis.hget(keys.workflow_state("torch"), "current_state")
        return state in (State.WORK_DISCOVERY, State.STREAM_CHECK)

    await until(published, what="the state of the idle Nova")
    running.cancel()  # as a crash: no last words
    await asyncio.gather(running, return_exceptions=True)
    second = await world.nova()
    assert second.epoch == first.epoch + 1
    assert second.data.resumed_from in (State.WORK_DISCOVERY, State.STREAM_CHECK)
    assert second.data.current_state is State.INITIALIZING
    assert second.data.current_phase is Phase.WORK_2
    assert second.data.tool_use_count == 3
    assert second.data.task_in_hand == ""
    assert second.data.session_start_time >= first.data.session_start_time


@pytest.mark.parametrize(
    "field", [("current_state", "dancing"), ("tool_use_count", "-1"), ("schema_version", "99")]
)
async def test_a_workflow_that_cannot_be_read_starts_anew_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture, field: tuple[str, str]
) -> None:
    fields = StateData(tool_use_count=7).to_hash()
    key = keys.workflow_state("torch")
    await world.redis.hset(key, mapping=dict(zip(fields[::2], fields[1::2], strict=True)))
    await world.redis.hset(key, *field)
    with caplog.at_level(logging.ERROR):
        nova = await world.nova()
    assert f"{key}: {field[0]} is" in caplog.text
    assert nova.data.resumed_from is None
    assert nova.data.tool_use_count == 0
    world.run(nova)
    await world.ended(await world.submit())


async def test_a_workflow_key_of_another_type_starts_anew_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.redis.set(keys.workflow_state("torch"), "x")
    with caplog.at_level(logging.ERROR):
        nova = await world.nova()
    assert "WRONGTYPE" in caplog.text
    world.run(nova)
    await world.ended(await world.submit())


async def test_a_nova_that_ends_closes_all_its_connections(world: World) -> None:
    nova = await world.nova()
    running = world.run(nova)
    await asleep(world, nova)
    nova.drain(1)
    await running

    async def gone() -> bool:
        names = [client["name"] for client in await world.redis.client_list()]
        return not any(name.startswith("nova-torch") for name in names)

    await until(gone, what="the end of its connections")


async def test_no_task_is_lost_or_done_twice_while_connections_are_cut(world: World) -> None:
    """Two Novas, many quick tasks without retries, and all connections cut again and again."""
    task_ids = [await world.submit(retries=0) for _ in range(300)]
    jobs = Jobs()
    for name in ("torch", "echo"):
        world.run(await world.nova(name, jobs))
    for seen in range(20, 300, 20):
        await until(lambda seen=seen: len(jobs.ran) >= seen, timeout_s=20)
        await world.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def all_done() -> bool:
        return (await world.tracker.counts())["completed"] == len(task_ids)

    await until(all_done, timeout_s=20, what="the completion of all")
    assert sorted(jobs.ran) == [(task_id, 1) for task_id in sorted(task_ids)]
    ends = [await world.redis.xlen(keys.completed(name)) for name in ("torch", "echo")]
    assert sum(ends) == len(task_ids)
