"""A Nova without Ray on a real store, its work done by plain executors given as plug-ins."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from waiting import until

from novawf.clock import SystemClock, wall_offset_ms
from novawf.executors.base import Outcome, Report, Work
from novawf.ids import request_id
from novawf.personality.profiles import profile_for
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe, unsafe
from novawf.store.connect import StoreAddress, connect
from novawf.tasks.config import TaskSettings
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker
from novawf.workflow.config import PhaseSettings
from novawf.workflow.nova import NovaConfig, NovaRuntime
from novawf.workflow.states import Event

DONE = Outcome(ok=True)
DONE_STEADILY = Outcome(ok=True, duration_s=0.05)
Job = Callable[[Work, Report, asyncio.Event], Awaitable[Outcome]]


class Jobs:
    """An executor whose jobs are the test's coroutines, chosen by the callable's name."""

    name = "python"

    def __init__(self, **jobs: Job) -> None:
        self.jobs = {"quick": quick, "steady": steady, "hold": self.hold, **jobs}
        self.ran: list[tuple[str, int]] = []
        self.cut: list[str] = []
        """Tasks whose work was told to end."""
        self.go = asyncio.Event()

    async def run(self, work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        self.ran.append((work.task_id, work.attempt))
        return await self.jobs[(work.callable or "").partition(":")[2]](work, report, cancel)

    async def close(self) -> None:
        """Nothing is kept warm."""

    async def hold(self, work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        """Works until `go` is set or it is told to end."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self.go, cancel)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.go.is_set():
            return DONE
        self.cut.append(work.task_id)
        return Outcome(ok=False, cause="cancelled", error="ended")


async def quick(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
    return DONE


async def steady(work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
    """Says that it took too long for a series: the next task is begun by a step of its own."""
    return DONE_STEADILY


class World:
    """A store, its queue and its gate, and Novas that come and go."""

    def __init__(self, store: StoreAddress, directory: Path, **tasks: Any) -> None:
        self.store = store
        self.directory = directory
        self.offset_ms = wall_offset_ms()
        self.clock = SystemClock(self.offset_ms)
        self.settings = TaskSettings(**{"lease_s": 5, "idle_wait_s": 5, **tasks})
        self.redis: Any = connect(store, name="test")
        self.queue = TaskQueue(self.redis, self.clock, self.settings)
        self.tracker = TaskTracker(self.redis, self.clock)
        self.gate = Gate(self.redis, self.clock)
        self.novas: list[NovaRuntime] = []
        self.running: list[asyncio.Task[str]] = []

    async def open_gate(self, good: bool = True, reason: str = "drill") -> None:
        until_ms = self.clock.now_ms() + 3_600_000
        await self.gate.refresh((safe if good else unsafe)(reason, until_ms))

    async def submit(self, job: str = "quick", **fields: Any) -> str:
        spec = TaskSpec.parse({"title": job, "callable": f"test:{job}", **fields})
        return (await self.queue.admit(spec, request_id())).task_id

    async def nova(
        self,
        name: str = "torch",
        jobs: Jobs | None = None,
        *,
        store: StoreAddress | None = None,
        phases: PhaseSettings | None = None,
        **config: Any,
    ) -> NovaRuntime:
        """A started Nova, whose steps the test makes, or `run` does; pace 0 unless given."""
        runtime = NovaRuntime(
            NovaConfig(
                name=name,
                store=store or self.store,
                clock_offset_ms=self.offset_ms,
                log_dir=self.directory,
                keeper_socket=self.directory / "none.sock",
                tasks=self.settings,
                phases=phases or PhaseSettings(),
                **{"pace": 0, "profile": profile_for(name), **config},
            )
        )
        await runtime.start()
        runtime.executors = {"python": jobs or Jobs()}
        self.novas.append(runtime)
        return runtime

    def run(self, nova: NovaRuntime) -> asyncio.Task[str]:
        self.novas.remove(nova)  # it closes what it opened by itself
        running = asyncio.create_task(nova.run())
        self.running.append(running)
        return running

    async def status(self, task_id: str) -> tuple[str, str | None]:
        view = await self.tracker.task(task_id)
        return view["status"], view["outcome"]

    async def ended(self, task_id: str, timeout_s: float = 5.0) -> dict[str, Any]:
        """The task, once it is completed or blocked."""

        async def look() -> dict[str, Any] | None:
            view = await self.tracker.task(task_id)
            return view if view["status"] in ("completed", "blocked") else None

        found: Any = await until(look, timeout_s, what=f"the end of {task_id}")
        return dict(found)

    async def close(self) -> None:
        for running in self.running:
            running.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        for nova in self.novas:
            with contextlib.suppress(Exception):
                await nova._close()
        await self.redis.aclose()


async def step_until(nova: NovaRuntime, event: Event, most: int = 30) -> None:
    """Make steps until one ends in `event`."""
    for _ in range(most):
        if await nova.cycle.execute_cycle() is event:
            return
    raise AssertionError(f"no {event} within {most} steps; in {nova.data.current_state}")
