"""The streams of a fleet on a real store, without a fleet."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from waiting import until

from novawf.clock import Clock
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.streams.catalogue import GROUP
from novawf.streams.config import StreamSettings
from novawf.streams.controller import StreamController, raw_replies
from novawf.streams.intake import WorkIntake
from novawf.streams.quarantine import Quarantine, quarantined
from novawf.streams.service import Handler, Job, Route, StreamService
from novawf.tasks.config import TaskSettings
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker

QUICK = StreamSettings(block_s=0.2, reclaim_after_s=0.2)


class StreamWorld:
    """Makes services as production does, and asks the store what came of them."""

    def __init__(self, store: StoreAddress, redis: Any, clock: Clock) -> None:
        self.store = store
        self.redis = redis
        self.clock = clock
        self.tracker = TaskTracker(redis, clock)
        self._clients: list[Any] = []
        self._running: list[asyncio.Task[None]] = []

    def queue(self) -> TaskQueue:
        client = connect(self.store, name="handler")
        self._clients.append(client)
        return TaskQueue(client, self.clock, TaskSettings())

    def reader(
        self, *streams: str, settings: StreamSettings = QUICK, consumer: str = "fleet"
    ) -> StreamController:
        client = raw_replies(
            connect(self.store, name="reader", block_s=settings.block_s, decode=False)
        )
        self._clients.append(client)
        return StreamController(client, settings, streams or (keys.WORK_QUEUE,), consumer)

    def service(
        self,
        *,
        handler: Handler | None = None,
        streams: tuple[str, ...] = (keys.WORK_QUEUE,),
        jobs: tuple[Job, ...] = (),
        settings: StreamSettings = QUICK,
    ) -> StreamService:
        """One that is not running yet; by default it takes work into the queue."""
        handler = handler or WorkIntake(self.queue())
        client = connect(self.store, name="quarantine")
        self._clients.append(client)
        return StreamService(
            self.reader(*streams, settings=settings),
            Quarantine(client, self.clock, settings.quarantine_length),
            [Route(stream, handler) for stream in streams],
            jobs,
            settings,
            self.store,
        )

    def run(self, service: StreamService) -> asyncio.Task[None]:
        running = asyncio.create_task(service.run())
        self._running.append(running)
        return running

    async def stop(self, running: asyncio.Task[None]) -> None:
        """As a SIGKILL would: whatever was under way stays as it is."""
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    async def add(self, stream: str = keys.WORK_QUEUE, **fields: Any) -> str:
        return str(await self.redis.xadd(stream, fields))

    async def titles(self) -> list[str]:
        """Titles of all tasks in the order of their admission."""
        return [row["title"] for row in await self.tracker.list()]

    async def admitted(self, count: int, timeout_s: float = 15.0) -> list[str]:
        """The titles, once there are so many tasks."""

        async def enough() -> bool:
            return int(await self.redis.zcard(keys.TASK_ORDER)) >= count

        await until(enough, timeout_s, what=f"{count} admitted tasks")
        return await self.titles()

    async def refused(self, count: int, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """What is in quarantine, once there is so much."""

        async def enough() -> bool:
            return len(await quarantined(self.redis)) >= count

        await until(enough, timeout_s, what=f"{count} entries in quarantine")
        return await quarantined(self.redis)

    async def pending(self, stream: str = keys.WORK_QUEUE) -> int:
        return int((await self.redis.xpending(stream, GROUP))["pending"])

    async def settled(self, stream: str = keys.WORK_QUEUE, timeout_s: float = 15.0) -> None:
        """Wait until everything in a stream was delivered and acknowledged."""

        async def done() -> bool:
            groups = await self.redis.xinfo_groups(stream)
            return any(
                group["name"] == GROUP and group["pending"] == 0 and group["lag"] == 0
                for group in groups
            )

        await until(done, timeout_s, what=f"{stream} consumed")

    async def close(self) -> None:
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for client in self._clients:
            await client.aclose()
