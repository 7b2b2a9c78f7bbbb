"""A whole Nova that has nothing to do: it looks for work, does it, and real work comes first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from losing_proxy import LosingProxy
from nova_world import World, step_until
from waiting import until

from novawf.executors.maintenance import MaintenanceExecutor
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.work.config import WorkSettings
from novawf.work.jobs.catalogue import BUILT_IN, maintenance_jobs
from novawf.work.jobs.table import JobContext
from novawf.workflow.nova import NovaRuntime
from novawf.workflow.states import Event

ON = WorkSettings(momentum_after_s=5)


@pytest.fixture
async def world(valkey_server: StoreAddress, redis: Any, tmp_path: Path) -> AsyncIterator[World]:
    made = World(valkey_server, tmp_path)
    await made.open_gate()
    yield made
    await made.close()


async def idle_nova(world: World, name: str = "torch", **config: Any) -> NovaRuntime:
    """A Nova whose idle time is over but for a moment: its clock is set on by five seconds."""
    nova = await world.nova(name, **{"work": ON, **config})
    jobs = maintenance_jobs(JobContext(nova.redis, nova.clock, name))
    nova.executors = {**nova.executors, "maintenance": MaintenanceExecutor(jobs, 5.0)}
    nova.steps.idle_work.due_in_s()  # its idle time begins
    nova.clock.offset_ms += 5000
    return nova


async def momentum(world: World, status: str | None = None) -> list[dict[str, Any]]:
    return [
        row for row in await world.tracker.list(status=status) if row["work_type"] == "momentum"
    ]


async def test_an_idle_nova_does_momentum_and_keeps_the_results(world: World) -> None:
    """Three built-in jobs, claimed like other tasks, each completed with its result."""
    world.run(await idle_nova(world))

    async def done() -> list[dict[str, Any]] | None:
        rows = await momentum(world, "completed")
        return rows if len(rows) == 3 else None

    rows = await until(done, what="three momentum tasks")
    for row in rows or []:
        view = await world.tracker.task(row["task_id"])
        assert view["results"]
        assert "skipped" not in view["results"]
        assert (view["executor"], view["attempts"]) == ("maintenance", 1)
    safety = next(row for row in rows or [] if row["title"] == BUILT_IN[0].title)
    results = (await world.tracker.task(safety["task_id"]))["results"]
    # The drill's gate is open for an hour, which no orchestrator would do: it is noticed.
    said = "the safety verdict holds for over ten minutes: it would fail open"
    assert said in results["findings"]


async def test_momentum_off_leaves_the_nova_idle(world: World) -> None:
    """It waits for work, and does nothing else."""
    nova = await idle_nova(world, work=WorkSettings(momentum=False))
    nova.claimant.settings = world.settings.model_copy(update={"idle_wait_s": 0.01})
    for _ in range(6):
        await nova.cycle.execute_cycle()
    assert await world.tracker.list() == []


@pytest.mark.parametrize("priority", ["critical", "medium"])
async def test_real_work_goes_before_momentum_that_waits(world: World, priority: str) -> None:
    """What arrives while momentum tasks are queued is next."""
    nova = await idle_nova(world)
    await step_until(nova, Event.WORK_FOUND)
    assert len(await momentum(world, "pending")) == 2
    task_id = await world.submit(priority=priority)
    await step_until(nova, Event.RECORDED)
    assert nova.steps.in_hand.held
    assert nova.steps.in_hand.held[0].task_id == task_id


async def test_work_that_waits_is_claimed_without_a_look(world: World) -> None:
    """Discovery is never on the way of work: a Nova that finds a task asks nobody else."""
    nova = await idle_nova(world)
    for _ in range(3):
        await world.submit("steady")
    for _ in range(3):
        await step_until(nova, Event.RECORDED)
    assert nova.steps.idle_work.processor.counts["cycles"] == 0


async def test_a_draining_nova_looks_for_nothing(world: World) -> None:
    """It is to end, not to find more."""
    nova = await idle_nova(world)
    nova.steps.draining = True
    for _ in range(4):
        await nova.cycle.execute_cycle()
    assert nova.steps.idle_work.processor.counts["cycles"] == 0


@pytest.mark.parametrize("lost", [keys.DELAYED, keys.COORDINATION_ALL[:4], keys.TASK_REQUESTS])
async def test_a_store_that_goes_away_during_a_look_loses_nothing(
    world: World, tmp_path: Path, lost: str
) -> None:
    """A connection that is cut in the middle costs that look, in part, and the Nova goes on."""
    proxy = LosingProxy(world.store, tmp_path)
    await proxy.start()
    nova = await idle_nova(world, store=proxy.address)
    nova.claimant.settings = world.settings.model_copy(update={"idle_wait_s": 0.01})
    await nova.cycle.execute_cycle()  # out of `initializing`
    await nova.cycle.execute_cycle()
    proxy.lose(lost)
    await nova.cycle.execute_cycle()
    assert proxy.lost.is_set()
    task_id = await world.submit()
    await step_until(nova, Event.RECORDED)
    world.run(nova)
    assert (await world.ended(task_id))["outcome"] == "succeeded"
    titles = [row["title"] for row in await momentum(world)]
    assert len(titles) == len(set(titles))
    await proxy.close()


async def test_the_last_look_at_the_streams_is_kept(world: World) -> None:
    """`last_stream_check` tells when the Nova last came by, idle or not."""
    nova = await idle_nova(world)
    before_ms = nova.clock.now_ms()
    await step_until(nova, Event.CHECKED)
    assert nova.data.last_stream_check >= before_ms
