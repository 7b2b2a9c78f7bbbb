"""What the rest of the fleet loses while one Nova dies at once, again and again, until quarantined.

Two Novas work off no-op Python tasks aimed at them; a third is idle in the first half of each round
and killed at each birth in the second, with the restart intensity as shipped. The rate is that of
the store's own counter of completed tasks over the same length of time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from novawf.client import Fleet
from novawf.store import keys
from tests.bench.fleet_under_test import running
from tests.bench.measure import Options, Result, Target, progress

TARGETS = (
    Target("kept", ">=", 0.95),
    Target("restarts", "<=", 5),
)
LIMIT_S = 500.0
NOVAS = ("torch", "echo", "helix")
WORKERS = ("echo", "helix")
DYING = "torch"
AHEAD = 4_000
"""Tasks that are kept queued for each worker."""


async def run(directory: Path, stamp: str, options: Options) -> Result:
    seconds = options.seconds or 40.0
    result = Result()
    async with running(directory / "fleet", stamp, NOVAS) as fleet, fleet.client() as client:
        await fleet.listening(client, len(NOVAS))
        feeder = asyncio.create_task(_feed(client))
        try:
            await asyncio.sleep(5)  # warm
            progress(f"quarantine: {seconds:g} s with all alive")
            calm = await _rate(client, seconds)
            progress(f"quarantine: {seconds:g} s while {DYING} dies")
            killer = asyncio.create_task(_kill_at_birth(client))
            stormy = await _rate(client, seconds)
            await asyncio.wait_for(killer, 120)
        finally:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)
        row = next(nova for nova in (await client.status())["novas"] if nova["id"] == DYING)
        if row["state"] != "quarantined":
            raise RuntimeError(f"{DYING} is {row['state']}, not quarantined")
        result.figures = {
            "calm_tasks_per_s": round(calm, 1),
            "stormy_tasks_per_s": round(stormy, 1),
            "kept": round(stormy / calm, 3),
            "restarts": row["restarts"],
        }
    return result


async def _kill_at_birth(client: Fleet) -> None:
    killed = 0
    while True:
        row: dict[str, Any] = next(n for n in (await client.status())["novas"] if n["id"] == DYING)
        if row["state"] == "quarantined":
            return
        if row["alive"] and row["pid"] not in (None, killed):
            killed = row["pid"]
            os.kill(killed, signal.SIGKILL)
        await asyncio.sleep(0.02)


async def _rate(client: Fleet, seconds: float) -> float:
    async def completed() -> int:
        redis: Any = client.redis
        return int(await redis.hget(keys.TASK_COUNTS, "completed") or 0)

    began_s, before = time.monotonic(), await completed()
    await asyncio.sleep(seconds)
    return (await completed() - before) / (time.monotonic() - began_s)


async def _feed(client: Fleet) -> None:
    """Keep so much queued that nobody runs dry, at a pace that does not depend on the rate."""
    while True:
        pending = (await client.status())["tasks"]["pending"]
        for nova in WORKERS:
            task = {"title": "steady", "callable": "bench_jobs:steady", "nova": nova}
            if pending < AHEAD:
                await asyncio.gather(*(client.submit(task) for _ in range(200)))
        await asyncio.sleep(0.2)
