"""Verified completion and deadlines of running work: a Nova on a real store, plug-in executors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nova_world import Job, Jobs, World
from waiting import until

from novawf.clock import iso
from novawf.executors.base import Outcome, Report, Work
from novawf.store import keys
from novawf.store.connect import StoreAddress

RESULTS = Outcome(ok=True, results={"rows": 3}, stdout_tail="wrote three rows")
NO = Outcome(ok=False, cause="failed", error="exit code 1", exit_code=1, stdout_tail="no report")


@pytest.fixture
async def world(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[World]:
    world = World(valkey_server, tmp_path, backoff_base_s=0.0)
    await world.open_gate()
    yield world
    await world.close()


def answers(*outcomes: Outcome) -> tuple[Job, list[Work]]:
    """A job that answers these, one after the other, and the work it was given."""
    given: list[Work] = []

    async def job(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        given.append(work)
        return outcomes[min(len(given), len(outcomes)) - 1]

    return job, given


class Commands:
    """An executor for commands: every one of them is this job."""

    name = "command"

    def __init__(self, job: Job) -> None:
        self.job = job

    async def run(self, work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        return await self.job(work, report, cancel)

    async def close(self) -> None:
        """Nothing is kept warm."""


async def run_with(world: World, work: Job, check: Job, **fields: Any) -> dict[str, Any]:
    """One task whose work and check are these; `accept` names the kind of check."""
    nova = await world.nova(jobs=Jobs(work=work, check=check))
    nova.executors["command"] = Commands(check)
    world.run(nova)
    return await world.ended(await world.submit("work", **fields))


async def test_a_task_is_completed_when_its_check_says_so_and_keeps_what_that_said(
    world: World,
) -> None:
    work, _ = answers(RESULTS)
    check, given = answers(Outcome(ok=True, exit_code=0, stdout_tail="report is there"))
    view = await run_with(world, work, check, accept="test -s 'the report'")
    assert (view["status"], view["results"]) == ("completed", {"rows": 3})
    assert view["accept"]["ok"] is True
    assert view["accept"]["stdout_tail"] == "report is there"
    assert given[0].argv == ("test", "-s", "the report")
    assert given[0].log_path.endswith(".1.accept.log")


async def test_work_whose_check_says_no_is_tried_again(world: World) -> None:
    work, tried = answers(RESULTS)
    check, _ = answers(NO, Outcome(ok=True, exit_code=0))
    view = await run_with(world, work, check, accept=["./check"])
    assert (view["status"], view["attempts"], len(tried)) == ("completed", 2, 2)


async def test_work_that_is_never_accepted_ends_blocked_with_the_checks_words(
    world: World,
) -> None:
    work, _ = answers(RESULTS)
    check, _ = answers(NO)
    view = await run_with(world, work, check, accept=["./check"], retries=1)
    assert (view["status"], view["outcome"], view["attempts"]) == ("blocked", "not_accepted", 2)
    assert view["accept"] | {"duration_s": 0} == {
        "ok": False, "exit_code": 1, "error": "exit code 1", "stdout_tail": "no report",
        "duration_s": 0,
    }  # fmt: skip
    assert view["history"][-1]["detail"] == "acceptance check: exit code 1"


async def test_a_callable_is_given_the_results_and_refuses_by_false(world: World) -> None:
    work, _ = answers(RESULTS)
    check, given = answers(Outcome(ok=True, results=False), Outcome(ok=True, results=None))
    view = await run_with(world, work, check, accept="python:test:check")
    assert (view["status"], view["attempts"]) == ("completed", 2)
    assert (given[0].callable, given[0].args) == ("test:check", ({"rows": 3},))


async def test_failed_work_is_not_checked(world: World) -> None:
    work, _ = answers(NO)
    check, given = answers(Outcome(ok=True))
    view = await run_with(world, work, check, accept=["./check"], retries=0)
    assert (view["outcome"], given) == ("failed", [])


async def test_a_check_that_is_cancelled_cancels_the_task(world: World) -> None:
    work, _ = answers(RESULTS)
    check, _ = answers(Outcome(ok=False, cause="cancelled", error="cancelled and ended"))
    view = await run_with(world, work, check, accept=["./check"])
    assert (view["status"], view["outcome"]) == ("blocked", "cancelled")


async def test_a_task_stays_in_its_novas_hands_while_it_is_checked(
    redis: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    """A check that takes longer than the lease costs no attempt, and hears of a cancellation."""
    world = World(valkey_server, tmp_path, lease_s=0.3)
    await world.open_gate()
    jobs = Jobs()
    nova = await world.nova(jobs=jobs)
    nova.executors["command"] = Commands(jobs.hold)
    world.run(nova)
    task_id = await world.submit(accept=["./check"], retries=0)

    async def lease_ms() -> float:
        return float(await world.redis.zscore(keys.LEASES, task_id) or 0)

    first_ms = await until(lease_ms, what="the claim")

    async def renewed_thrice() -> bool:
        assert await world.queue.release_expired() == []
        return await lease_ms() > first_ms + 900

    await until(renewed_thrice, what="the renewals")
    await world.queue.cancel(task_id)
    assert (await world.ended(task_id))["outcome"] == "cancelled"
    await world.close()


async def test_a_check_that_cannot_be_made_completes_nothing(world: World) -> None:
    """The work's own success is not taken for the check's, whatever goes wrong in between."""

    async def breaks(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        raise RuntimeError("the executor broke")

    work, _ = answers(RESULTS)
    view = await run_with(world, work, breaks, accept=["./check"], retries=0)
    assert (view["status"], view["outcome"]) == ("blocked", "failed")


async def test_work_is_given_no_more_time_than_its_deadline_leaves(world: World) -> None:
    work, given = answers(RESULTS)
    deadline = iso(world.clock.wall_s() + 60)
    await run_with(world, work, work, deadline=deadline, timeout_s=3600)
    assert given[0].timeout_s is not None
    assert 50 < given[0].timeout_s <= 60


async def test_work_that_its_deadline_ended_is_blocked_and_not_tried_again(world: World) -> None:
    async def work(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        assert work.timeout_s is not None
        await asyncio.sleep(work.timeout_s + 0.01)  # as an executor ends it
        return Outcome(ok=False, cause="timeout", error="exceeded its limit and was ended")

    view = await run_with(world, work, work, deadline=iso(world.clock.wall_s() + 0.3))
    assert (view["status"], view["outcome"], view["attempts"]) == ("blocked", "deadline", 1)
