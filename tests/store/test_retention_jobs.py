"""Whatever a fleet does, its regular jobs keep the store small and the figures current."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waiting import until

from novawf.clock import SystemClock, wall_offset_ms
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.streams.assembly import FleetStreams, StreamConfig
from novawf.streams.config import StreamSettings
from novawf.tasks.archive import ArchiveReader
from novawf.tasks.config import TaskSettings
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_the_streams_of_a_fleet_sweep_trim_and_count(
    redis: Redis, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    """What has ended goes to the archive, and so do its records; the counters are posted."""
    clock = SystemClock(wall_offset_ms())
    tasks = TaskSettings(retention_h=1e-9)
    queue = TaskQueue(redis, clock, tasks)
    task_id = (await queue.admit(TaskSpec.parse({"title": "x", "argv": ["true"]}), "r")).task_id
    await queue.cancel(task_id)
    archive_dir = tmp_path / "archive"
    streams = FleetStreams(
        StreamConfig(
            valkey_server,
            ("torch",),
            StreamSettings(block_s=0.1, max_age_h=1e-9),
            tasks,
            archive_dir=archive_dir,
        ),
        clock,
    )
    running = asyncio.create_task(streams.run())
    try:

        async def archived() -> Any:
            return await asyncio.to_thread(ArchiveReader(archive_dir).find, task_id)

        assert (await until(archived, what="the task in the archive"))["status"] == "blocked"
        await until(lambda: _count(redis, keys.TASK_STATE), what="the task out of the store")
        await until(lambda: list(archive_dir.glob("streams-*.gz")), what="entries in the archive")

        async def checked() -> Any:
            return await redis.hget(keys.PROTOCOL, "all")  # type: ignore[misc]

        await until(checked, what="a checked record")
        assert await redis.hget(keys.METRICS_SENT, "admitted") == "1"  # type: ignore[misc]
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await streams.close()


async def _count(redis: Any, key: str) -> bool:
    return await redis.hlen(key) == 0
