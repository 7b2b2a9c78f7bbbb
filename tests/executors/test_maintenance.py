"""The maintenance executor: built-in jobs in the Nova's own process, within a limit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from novawf.executors.base import NOT_BEGUN, Outcome, Work
from novawf.executors.maintenance import Job, MaintenanceExecutor
from novawf.executors.start import Start
from novawf.limits.request import ApiAnswer, ApiAsk


class NoReport:
    def progress(self, percent: float | None, text: str) -> None: ...

    def alive(self) -> None: ...

    def waits_for_permit(self) -> None: ...

    async def api_request(self, ask: ApiAsk) -> dict[str, Any]:
        raise AssertionError("a built-in job asks for no API request")

    async def api_done(self, permit: dict[str, Any], answer: ApiAnswer) -> None: ...

    async def api_void(self, permit: dict[str, Any]) -> None: ...


def work(job: str, *args: Any, timeout_s: float | None = None) -> Work:
    return Work(
        "FLEET-1-00000a", 1, "torch", "torch:1", "/nowhere/log",
        callable=job, args=args, timeout_s=timeout_s,
    )  # fmt: skip


async def run(
    job: Job, *args: Any, limit_s: float = 5.0, timeout_s: float | None = None
) -> Outcome:
    executor = MaintenanceExecutor({"job": job}, limit_s)
    outcome = await executor.run(
        work("job", *args, timeout_s=timeout_s), NoReport(), asyncio.Event()
    )
    await executor.close()
    return outcome


async def test_a_job_gets_its_arguments_and_its_answer_is_the_result() -> None:
    """What the job answers is kept as the task's results."""

    async def job(args: tuple[Any, ...]) -> dict[str, Any]:
        return {"sum": sum(args)}

    outcome = await run(job, 1, 2)
    assert (outcome.ok, outcome.cause, outcome.results) == (True, "", {"sum": 3})
    assert outcome.duration_s >= 0


async def test_a_job_that_raises_has_failed() -> None:
    """The Nova goes on; the error is one line for people."""

    async def job(args: tuple[Any, ...]) -> dict[str, Any]:
        raise ZeroDivisionError("no way")

    outcome = await run(job)
    assert (outcome.ok, outcome.cause) == (False, "failed")
    assert outcome.error == "ZeroDivisionError: no way"


class Endless:
    """A job that ends only when it is told to, and takes a moment then."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.over = False

    async def __call__(self, args: tuple[Any, ...]) -> dict[str, Any]:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.over = True
        return {}


@pytest.mark.parametrize(("limit_s", "timeout_s"), [(0.02, None), (5.0, 0.02), (0.02, 5.0)])
async def test_a_job_that_takes_too_long_is_ended(limit_s: float, timeout_s: float | None) -> None:
    """The shorter of the executor's and the task's limit holds, and nothing goes on behind it."""
    job = Endless()
    outcome = await run(job, limit_s=limit_s, timeout_s=timeout_s)
    assert (outcome.ok, outcome.cause) == (False, "timeout")
    assert job.over


async def test_a_cancelled_job_is_ended() -> None:
    """As soon as the task says so, and its end is waited for."""
    job, cancel = Endless(), asyncio.Event()
    executor = MaintenanceExecutor({"job": job}, 5.0)
    running = asyncio.create_task(executor.run(work("job"), NoReport(), cancel))
    await job.began.wait()
    cancel.set()
    outcome = await running
    assert (outcome.ok, outcome.cause) == (False, "cancelled")
    assert job.over


async def test_a_nova_that_ends_takes_the_job_with_it() -> None:
    """A cancellation of the Nova's own task ends the job before it goes on."""
    job = Endless()
    executor = MaintenanceExecutor({"job": job}, 5.0)
    running = asyncio.create_task(executor.run(work("job"), NoReport(), asyncio.Event()))
    await job.began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert job.over


async def test_what_was_cancelled_before_never_begins() -> None:
    """A job is not begun only to be ended."""
    job, cancel = Endless(), asyncio.Event()
    cancel.set()
    outcome = await MaintenanceExecutor({"job": job}, 5.0).run(work("job"), NoReport(), cancel)
    assert outcome.cause == "cancelled"
    assert not job.began.is_set()


async def test_an_unknown_job_is_not_tried_again() -> None:
    """`not_found` ends the task at once, and the error names what there is."""
    outcome = await MaintenanceExecutor({"job": Endless()}, 5.0).run(
        work("jab"), NoReport(), asyncio.Event()
    )
    assert (outcome.cause, outcome.error) == ("not_found", "there is no built-in job 'jab' (job)")


async def test_a_job_whose_time_to_begin_is_over_is_not_begun() -> None:
    ran = []

    async def job(args: tuple[Any, ...]) -> dict[str, Any]:
        ran.append(args)
        return {}

    late = replace(work("job"), start=Start(0.0))
    outcome = await MaintenanceExecutor({"job": job}, 5.0).run(late, NoReport(), asyncio.Event())
    assert (outcome, ran) == (NOT_BEGUN, [])


async def test_a_report_shows_no_secret_and_neither_does_a_fault() -> None:
    """Both quote what tasks are called, and reports are sent on."""

    async def job(args: tuple[Any, ...]) -> dict[str, Any]:
        if args:
            raise ValueError("token=a8f5")
        return {"repeated": {"deploy --token a8f5": 2}, "failed": ["password=hunter2"]}

    outcome = await run(job)
    assert outcome.results == {"repeated": {"deploy --token ***": 2}, "failed": ["password=***"]}
    assert (await run(job, 1)).error == "ValueError: token=***"
