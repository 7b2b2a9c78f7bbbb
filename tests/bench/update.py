"""A task's progress, end to end: `ctx.progress` in the job → an XREAD BLOCK reader has the record.

The reader is a plain client that blocks on the protocol's streams, as a dashboard or another
program would. The text of a progress record says when the job posted it. `completed` is the same
for the end of a task: its last line → the record in `nova.tasks.NOVA.completed` is with the reader.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

from novawf.client import Fleet
from novawf.store import keys
from novawf.store.connect import connect
from tests.bench import bare_store
from tests.bench.fleet_under_test import running
from tests.bench.measure import Options, Result, Target, progress, ratio, spread

TARGETS = (
    Target("progress_visible_ms.p99", "<=", 20.0),
    Target("completed_visible_ms.p99", "<=", 20.0),
)
LIMIT_S = 300.0
NOVAS = ("torch", "echo")
PER_JOB = 50
PAUSE_S = 0.02
BLOCK_MS = 2000


class Reader:
    """Notes when each record came."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.records: list[tuple[int, str, dict[str, str]]] = []
        """When (CLOCK_MONOTONIC, ns), the stream, the fields."""

    async def read(self) -> None:
        """For ever, what is new on the Novas' streams."""
        streams = {stream(nova): "$" for nova in NOVAS for stream in _STREAMS}
        while True:
            for stream, entries in await self.redis.xread(streams, block=BLOCK_MS) or ():
                now_ns = time.monotonic_ns()
                for entry_id, fields in entries:
                    self.records.append((now_ns, stream, fields))
                    streams[stream] = entry_id


_STREAMS = (keys.progress, keys.completed)


async def run(directory: Path, stamp: str, options: Options) -> Result:
    count = options.count or 600
    result = Result()
    async with (
        running(directory / "fleet", stamp, NOVAS) as fleet,
        fleet.client() as client,
    ):
        await fleet.listening(client, len(NOVAS))
        address = bare_store.address_of(fleet.home)
        redis: Any = connect(address, block_s=BLOCK_MS / 1000, name="bench-reader", single=True)
        reader = Reader(redis)
        reading = asyncio.create_task(reader.read())
        try:
            for nova in NOVAS:
                task = {"title": "warm", "callable": "bench_jobs:started", "nova": nova}
                await client.wait(await client.submit(task), 30)
            jobs = max(1, count // PER_JOB)
            progress(f"update: {jobs * PER_JOB} progress records, {count // 3} ends")
            reader.records.clear()
            for _ in range(jobs):
                task = {"title": "updates", "callable": "bench_jobs:updates"}
                await client.wait(await client.submit({**task, "args": [PER_JOB, PAUSE_S]}), 60)
            result.figures["progress_visible_ms"] = spread(_progress(reader))
            result.figures["completed_visible_ms"] = spread(
                await _ends(client, reader, max(1, count // 3))
            )
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await redis.aclose()
        result.baseline["store_hand_over_ms"] = spread(
            await bare_store.hand_overs(address, 100, 0.03)
        )
    hand_over_ms = result.baseline["store_hand_over_ms"]["p50"]
    for name in ("progress", "completed"):
        p50 = result.figures[f"{name}_visible_ms"]["p50"]
        result.ratios[f"{name}_to_hand_over"] = ratio(p50, hand_over_ms)
    return result


def _progress(reader: Reader) -> list[float]:
    """From the job's own time in the text to the arrival."""
    return [
        (came_ns - int(fields["update"])) / 1e6
        for came_ns, _, fields in reader.records
        if fields.get("update", "").isdecimal()
    ]


async def _ends(client: Fleet, reader: Reader, count: int) -> list[float]:
    """One task after the other on an idle fleet; from the time it returns to its record."""
    completed = {keys.completed(nova) for nova in NOVAS}
    found = []
    for _ in range(count):
        await asyncio.sleep(random.uniform(0.04, 0.1))
        reader.records.clear()
        task_id = await client.submit({"title": "end", "callable": "bench_jobs:started"})
        ended = await client.wait(task_id, 30)
        async with asyncio.timeout(10):
            while not (
                came := [
                    at_ns
                    for at_ns, stream, fields in reader.records
                    if stream in completed and fields["task_id"] == task_id
                ]
            ):
                await asyncio.sleep(0.002)
        found.append((came[0] - int(ended["results"])) / 1e6)
    return found
