"""Short tasks in a row: fewer calls than tasks, and every promise of the queue is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from losing_proxy import LosingProxy
from nova_world import DONE, Jobs, World, step_until
from waiting import until

from novawf.executors.base import Outcome, Report, Work
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.tasks import claims
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.workflow.config import PhaseSettings
from novawf.workflow.nova import NovaRuntime
from novawf.workflow.series import MOST
from novawf.workflow.states import Event, State

MANY = 60


@pytest.fixture
async def world(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[World]:
    world = World(valkey_server, tmp_path)
    await world.open_gate()
    for script in (claims._CLAIM, claims._FINISH):
        await world.redis.script_load(script.source)
    yield world
    await world.close()


async def history(world: World, task_id: str) -> list[str]:
    packed = await world.redis.hget(keys.TASK_STATE, task_id)
    return [line.split("|")[1] for line in packed.split("\n")[1:-1]]


async def others_see(world: World) -> Claim:
    """What another Nova gets that asks now."""
    epoch = await take_identity(world.redis, "echo")
    claim = await Claimant(world.redis, world.clock, world.settings, "echo", epoch).claim()
    assert isinstance(claim, Claim)
    return claim


def held(nova: NovaRuntime) -> list[str]:
    return [claim.task_id for claim in nova.steps.in_hand.held]


async def in_a_series(world: World, nova: NovaRuntime, jobs: Jobs, **last: Any) -> list[str]:
    """Short tasks, then one that holds, then short ones: it holds, with some waiting behind it."""
    ids = [await world.submit() for _ in range(MANY)]
    ids.append(await world.submit("hold", **last))
    ids += [await world.submit() for _ in range(MANY)]
    world.run(nova)

    async def holds() -> bool:
        return bool(jobs.ran) and jobs.ran[-1][0] == ids[MANY]

    await until(holds, what="the task that holds")
    return ids


async def test_short_tasks_are_recorded_in_groups_and_in_order(world: World) -> None:
    ids = [await world.submit() for _ in range(MANY)]
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    await world.redis.config_resetstat()
    await step_until(nova, Event.RECORDED)
    calls = (await world.redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert calls < MANY / 3
    assert jobs.ran == [(task_id, 1) for task_id in ids]
    assert [await history(world, task_id) for task_id in ids] == [
        ["created", "claimed", "completed"]
    ] * MANY
    assert await world.redis.xlen(keys.completed("torch")) == MANY
    assert (await world.tracker.counts())["completed"] == MANY
    assert nova.data.current_state is State.COMPLETION_ROUTINE


async def test_a_job_that_is_not_short_lets_go_of_what_waits_behind_it(world: World) -> None:
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    ids = await in_a_series(world, nova, jobs)

    async def let_go() -> bool:
        states = await world.redis.hmget(keys.TASK_STATE, ids[MANY + 1 :])
        return not held(nova) and all(state.startswith("pending|") for state in states)

    await until(let_go, what="the others to be free")
    for task_id in ids[:MANY]:
        assert await world.status(task_id) == ("completed", "succeeded")
    assert await world.status(ids[MANY]) == ("in_progress", None)
    claim = await others_see(world)  # it is where it was in the line, and has all its attempts
    assert claim.task_id == ids[MANY + 1]
    assert claim.attempt < claim.limit
    assert claim.limit - claim.attempt == world.settings.retries
    jobs.go.set()
    for task_id in ids[MANY + 2 :]:
        assert (await world.ended(task_id))["status"] == "completed"
    assert len({task_id for task_id, _ in jobs.ran}) == len(jobs.ran)


@pytest.mark.parametrize(
    "unfit",
    [{"retries": 0}, {"accept": ["true"]}, {"deadline": "2999-01-01T00:00:00Z"}],
    ids=lambda fields: next(iter(fields)),
)
async def test_what_is_not_fit_to_wait_is_not_taken_ahead(
    world: World, unfit: dict[str, Any]
) -> None:
    """A Nova that dies would cost it an attempt that was never made."""
    seen: list[str] = []

    async def looks(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        state = await world.redis.hget(keys.TASK_STATE, last)
        seen.append(state.split("|")[0])
        return DONE

    jobs = Jobs(look=looks)
    nova = await world.nova(jobs=jobs)
    short = [await world.submit("look") for _ in range(MANY)]
    last = await world.submit(**unfit)
    world.run(nova)
    await world.ended(short[-1])
    assert set(seen) == {"pending"}
    if "accept" not in unfit:
        assert (await world.ended(last))["status"] == "completed"


async def test_nothing_waits_behind_a_command(world: World) -> None:
    short = [await world.submit() for _ in range(MANY)]
    command = await world.submit(argv=["true"], callable=None)
    behind = await world.submit()
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    commands = Jobs(**{"": jobs.hold})
    nova.executors["command"] = commands
    world.run(nova)

    async def runs() -> bool:
        return bool(commands.ran)

    await until(runs, what="the command")
    assert commands.ran == [(command, 1)]
    assert [task_id for task_id, _ in jobs.ran] == short
    assert await world.status(behind) == ("pending", None)
    assert await history(world, behind) == ["created"]
    jobs.go.set()
    assert (await world.ended(behind))["status"] == "completed"


async def test_a_stop_ends_a_series_before_the_next_task(world: World) -> None:
    jobs, nova = Jobs(), None

    async def stops(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        await world.gate.stop("drill", "test")
        assert nova is not None
        nova._obey({"op": "stop"})
        return DONE

    jobs = Jobs(stop=stops)
    ids = [await world.submit() for _ in range(MANY)]
    ids.append(await world.submit("stop"))
    ids += [await world.submit() for _ in range(MANY)]
    nova = await world.nova(jobs=jobs)
    await step_until(nova, Event.UNSAFE)
    await step_until(nova, Event.UNSAFE)  # the first one led to the pause
    assert [task_id for task_id, _ in jobs.ran] == ids[: MANY + 1]
    assert not held(nova)
    for task_id in ids[MANY + 1 :]:
        assert await world.status(task_id) == ("pending", None)


async def test_a_drain_ends_a_series_and_gives_back_what_waits(world: World) -> None:
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)

    async def drains(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        nova.drain(60)
        return DONE

    jobs.jobs["drain"] = drains
    ids = [await world.submit() for _ in range(MANY)]
    ids.append(await world.submit("drain"))
    ids += [await world.submit() for _ in range(MANY)]
    assert await world.run(nova) == "drained"
    assert [task_id for task_id, _ in jobs.ran] == ids[: MANY + 1]
    counts = await world.tracker.counts()
    assert (counts["completed"], counts["pending"]) == (MANY + 1, MANY)
    assert (await others_see(world)).task_id == ids[MANY + 1]


async def test_a_task_that_waits_in_hand_can_be_cancelled(world: World) -> None:
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    doomed: list[str] = []

    async def cancels(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        doomed.append(held(nova)[1])
        assert await world.queue.cancel(doomed[0]) == "cancelling"
        epoch = (await world.redis.hget(keys.TASK_STATE, doomed[0])).split("|")[4]
        nova._obey({"op": "cancel", "task": doomed[0], "epoch": epoch})
        return DONE

    jobs.jobs["cancel"] = cancels
    ids = [await world.submit() for _ in range(MANY)]
    ids.append(await world.submit("cancel"))
    ids += [await world.submit() for _ in range(MANY)]
    world.run(nova)
    await world.ended(ids[-1])
    ended = await world.ended(doomed[0])
    assert (ended["status"], ended["outcome"]) == ("blocked", "cancelled")
    assert sorted(task_id for task_id, _ in jobs.ran) == sorted(set(ids) - set(doomed))


@pytest.mark.parametrize("what", ["reply", "request"])
async def test_a_lost_call_of_a_series_is_recorded_once_and_runs_nothing_twice(
    world: World, tmp_path: Path, what: Any
) -> None:
    proxy = LosingProxy(world.store, tmp_path)
    await proxy.start()
    jobs = Jobs()

    async def loses(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        proxy.lose(claims._FINISH.sha1, what)
        return DONE

    jobs.jobs["lose"] = loses
    ids = [await world.submit() for _ in range(MANY)]
    ids.append(await world.submit("lose"))
    ids += [await world.submit() for _ in range(MANY)]
    nova = await world.nova(jobs=jobs, store=proxy.address)
    world.run(nova)
    for task_id in ids:
        assert (await world.ended(task_id))["status"] == "completed"
    assert proxy.lost.is_set()
    assert jobs.ran == [(task_id, 1) for task_id in ids]
    assert await world.redis.xlen(keys.completed("torch")) == len(ids)
    await proxy.close()


async def test_ends_reach_a_store_that_was_away_while_a_long_job_goes_on(
    world: World, tmp_path: Path
) -> None:
    """They are not kept back until the job ends: their leases would run out."""
    proxy = LosingProxy(world.store, tmp_path)
    await proxy.start()
    jobs = Jobs()
    nova = await world.nova(jobs=jobs, store=proxy.address)

    async def loses(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        proxy.lose(claims._FINISH.sha1)
        return await jobs.hold(work, report, cancel)

    jobs.jobs["lose"] = loses
    ids = [await world.submit() for _ in range(MANY)]
    ids.append(await world.submit("lose"))
    world.run(nova)
    for task_id in ids[:MANY]:
        assert (await world.ended(task_id))["status"] == "completed"
    assert proxy.lost.is_set()
    assert await world.status(ids[MANY]) == ("in_progress", None)
    jobs.go.set()
    assert (await world.ended(ids[MANY]))["status"] == "completed"
    assert jobs.ran == [(task_id, 1) for task_id in ids]
    await proxy.close()


async def test_a_failure_in_a_series_is_retried_like_any_other(world: World) -> None:
    async def fails(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        return DONE if work.attempt > 1 else Outcome(ok=False, cause="failed", error="exit 1")

    world.settings = world.settings.model_copy(update={"backoff_base_s": 0.0})
    jobs = Jobs(fail=fails)
    ids = [await world.submit() for _ in range(MANY)]
    ids.append(await world.submit("fail"))
    ids += [await world.submit() for _ in range(MANY)]
    nova = await world.nova(jobs=jobs)
    world.run(nova)
    for task_id in ids:
        assert (await world.ended(task_id))["status"] == "completed"
    assert await history(world, ids[MANY]) == [
        "created", "claimed", "retry", "claimed", "completed",
    ]  # fmt: skip
    assert len(jobs.ran) == len(ids) + 1


async def test_a_task_taken_long_ago_is_not_begun(world: World) -> None:
    """The process was stopped meanwhile: the task may be in other hands, under way or done."""
    first, second = await world.submit("steady"), await world.submit()
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    await step_until(nova, Event.RECORDED)
    assert held(nova) == [second]
    waits = nova.steps.in_hand.held
    waits[0] = replace(waits[0], taken_ms=world.clock.now_ms() - int(world.settings.lease_s * 1000))
    await step_until(nova, Event.NO_WORK)
    assert [task_id for task_id, _ in jobs.ran] == [first]
    assert await world.status(second) == ("pending", None)


async def test_phases_go_on_within_a_series(world: World) -> None:
    for _ in range(MANY):
        await world.submit()
    nova = await world.nova(phases=PhaseSettings(tasks_per_phase=10))
    await step_until(nova, Event.RECORDED)
    assert nova.data.work_phases_completed >= MANY // (10 + 2 * MOST)
    assert nova.data.tasks_completed_in_phase <= 10 + 2 * MOST


async def test_a_personal_phase_ends_a_series(world: World) -> None:
    for _ in range(MANY):
        await world.submit()
    jobs = Jobs()
    nova = await world.nova(
        jobs=jobs, phases=PhaseSettings(tasks_per_phase=10, personal_every=1, personal_s=0.0)
    )
    await step_until(nova, Event.PHASE_DUE)
    assert 10 <= len(jobs.ran) <= 10 + 2 * MOST
