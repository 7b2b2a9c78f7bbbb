"""An emergency stop of three Novas at work: from the call to its acknowledgement, and to the end.

The fleet works on a queue of short callables and commands. Each stop is cleared again, and comes at
a moment of its own. The baseline is one round trip to the same store. Then commands that ignore
SIGINT and SIGTERM run on all three, and a stop is timed until nothing of them is left.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

from novawf.client import Fleet
from tests.bench.fleet_under_test import running
from tests.bench.measure import Options, Result, Target, progress, ratio, spread

TARGETS = (Target("acknowledged_ms.p95", "<=", 50.0), Target("gone_s.max", "<=", 10.0))
LIMIT_S = 600.0
NOVAS = ("torch", "echo", "helix")
STUBBORN = 'trap "" INT TERM; echo $$ > "$0"; while :; do sleep 0.2; done'


async def run(directory: Path, stamp: str, options: Options) -> Result:
    count, result = options.count or 100, Result()
    async with (
        running(directory / "fleet", stamp, NOVAS, pace=0) as fleet,
        fleet.client() as client,
    ):
        await fleet.listening(client, len(NOVAS))
        for kind, drain in (("acknowledged_ms", False), ("acknowledged_draining_ms", True)):
            progress(f"stop: {count} stops{', draining' if drain else ''}")
            took_ms = [await _stop(client, drain) for _ in range(count)]
            result.figures[kind] = spread(took_ms)
        result.figures["gone_s"] = spread(
            [await _until_gone(client, directory, turn) for turn in range(3)]
        )
        result.baseline["ping_ms"] = spread([await _ping(client) for _ in range(count)])
    result.ratios["acknowledged_to_pings"] = ratio(
        result.figures["acknowledged_ms"]["p50"], result.baseline["ping_ms"]["p50"]
    )
    return result


async def _stop(client: Fleet, drain: bool) -> float:
    """One stop of a fleet at work: ms until it was acknowledged."""
    before = (await client.status())["tasks"]["completed"]
    tasks: list[dict[str, Any]] = [
        *({"title": "short", "callable": "bench_jobs:steady"} for _ in range(24)),
        *({"title": "command", "argv": ["true"]} for _ in range(6)),
    ]
    random.shuffle(tasks)
    await asyncio.gather(*(client.submit(task) for task in tasks))
    while (await client.status())["tasks"]["completed"] <= before:
        await asyncio.sleep(0.005)
    await asyncio.sleep(random.random() * 0.05)
    began_s = time.monotonic()
    await client.stop_all("bench", drain=drain)
    took_ms = (time.monotonic() - began_s) * 1000
    await client.clear_stop()
    return took_ms


async def _until_gone(client: Fleet, directory: Path, turn: int) -> float:
    """A stop while each Nova runs a command that ignores polite signals: s until all are gone."""
    notes = [directory / f"pid-{turn}-{nova}" for nova in NOVAS]
    ids = [
        await client.submit(
            {
                "title": "stubborn",
                "argv": ["bash", "-c", STUBBORN, str(note)],
                "nova": nova,
                "priority": "critical",
            }
        )
        for nova, note in zip(NOVAS, notes, strict=True)
    ]
    while not all(note.exists() and note.read_text().strip() for note in notes):
        await asyncio.sleep(0.05)
    pids = [int(note.read_text()) for note in notes]
    await asyncio.sleep(1.0)  # what has only just begun would be killed at once
    began_s = time.monotonic()
    await client.stop_all("bench")
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        await asyncio.sleep(0.02)
    took_s = time.monotonic() - began_s
    await client.nothing_runs(10)
    for task_id in ids:
        await client.cancel(task_id)
    await client.clear_stop()
    return took_s


async def _ping(client: Fleet) -> float:
    began_s = time.monotonic()
    await client.redis.ping()
    return (time.monotonic() - began_s) * 1000
