"""Runs built-in jobs: coroutines inside the Nova's own process, for its own maintenance.

Which jobs there are is told from above; this knows only how to run one within a time limit and how
to end it. A job is ours and trusted: it waits for the store and computes little, so it neither
needs a process of its own nor may it block the Nova's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from novawf.clock import monotonic_s
from novawf.executors.base import NOT_BEGUN, Outcome, Report, Work
from novawf.telemetry.masking import mask, mask_json

Job = Callable[[tuple[Any, ...]], Awaitable[dict[str, Any]]]
"""Takes the task's `args`; answers its result."""


class MaintenanceExecutor:
    """`Work.callable` is the name of the job."""

    name = "maintenance"

    def __init__(self, jobs: Mapping[str, Job], limit_s: float) -> None:
        """A job is ended after `limit_s`, or earlier when its task says so."""
        self._jobs = jobs
        self._limit_s = limit_s

    async def run(self, work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        """See `Executor.run`."""
        name = work.callable or ""
        job = self._jobs.get(name)
        if job is None:
            known = ", ".join(sorted(self._jobs)) or "none"
            return Outcome(
                ok=False, cause="not_found", error=f"there is no built-in job {name!r} ({known})"
            )
        if cancel.is_set():
            return Outcome(ok=False, cause="cancelled", error="cancelled before it began")
        limit_s = min(self._limit_s, work.timeout_s or self._limit_s)
        started_s = monotonic_s()
        start = work.start
        begun_s: list[float] = []

        async def begin() -> dict[str, Any]:
            if not start.is_open:  # this process may have been stopped in between
                return {}
            begun_s.append(monotonic_s())
            return await job(work.args)

        start.handed_over(lambda _: cancel.set(), lambda: begun_s[0] if begun_s else None)
        outcome = await _within(begin(), cancel, limit_s)
        if not begun_s:
            return NOT_BEGUN
        return Outcome(
            ok=outcome.ok,
            cause=outcome.cause,
            error=outcome.error,
            results=outcome.results,
            duration_s=monotonic_s() - started_s,
        )

    async def close(self) -> None:
        """Nothing is kept warm."""


async def _within(job: Awaitable[dict[str, Any]], cancel: asyncio.Event, limit_s: float) -> Outcome:
    running = asyncio.ensure_future(job)
    cancelled = asyncio.ensure_future(cancel.wait())
    try:
        await asyncio.wait(
            {running, cancelled}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not running.done():
            if cancel.is_set():
                return Outcome(ok=False, cause="cancelled", error="cancelled and ended")
            return Outcome(ok=False, cause="timeout", error=f"exceeded {limit_s:g} s and was ended")
        if running.cancelled():
            return Outcome(ok=False, cause="failed", error="it cancelled itself")
        error = running.exception()
        if error is not None:
            return Outcome(ok=False, cause="failed", error=mask(f"{type(error).__name__}: {error}"))
        # Reports are read by people and sent on: what they quote of tasks holds no secrets.
        return Outcome(ok=True, results=mask_json(running.result()))
    finally:
        cancelled.cancel()
        if not running.done():
            running.cancel()
            await asyncio.wait({running})  # its end is part of ours: nothing goes on behind us
