"""No-op Python tasks through two Novas at pace 0, and what each costs the store.

The tasks are queued while the fleet is paused. The rate is read from the store's own counter of
completed tasks between 10 % and 90 %. Round trips are the server's count of reads from its clients:
nobody here pipelines, and what scripts call is no read. What the fleet asks every second whether it
works or not (heartbeats, the safety verdict, the supervisor's look at leases) is measured before,
idle, and shown apart. A second, smaller batch under MONITOR tells the commands' names.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from novawf.client import Fleet
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from tests.bench import bare_store, processes
from tests.bench.baseline import bare_ray
from tests.bench.fleet_under_test import FleetUnderTest, running
from tests.bench.measure import Options, Result, Target, progress, ratio

TARGETS = (
    Target("tasks_per_s", ">=", 2000.0),
    Target("round_trips_per_task", "<=", 1.0),
)
LIMIT_S = 400.0
NOVAS = ("torch", "echo")
LOOK_EVERY_S = 0.02
IDLE_S = 5.0
NAMED_TASKS = 2000
NOOP = {"title": "no-op", "callable": "bench_jobs:noop"}


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything that is counted, at one moment."""

    at_s: float
    completed: int
    reads: int
    scripts: int
    cpu_s: dict[str, float]


class Counters:
    """The store's counters, and how many of the reads among them are this reader's own."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._own_reads = 0

    async def completed(self) -> int:
        """How many tasks are completed; one HGET."""
        self._own_reads += 1
        return int(await self._redis.hget(keys.TASK_COUNTS, "completed") or 0)

    async def mark(self, groups: dict[str, list[int]]) -> Mark:
        """Everything, at once."""
        self._own_reads += 1
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(keys.TASK_COUNTS, "completed")
            pipe.info("stats")
            pipe.info("commandstats")
            completed, stats, commands = await pipe.execute()
        at_s = time.monotonic()
        return Mark(
            at_s,
            int(completed or 0),
            int(stats["total_reads_processed"]) - self._own_reads,
            int(commands.get("cmdstat_evalsha", {}).get("calls", 0)),
            {name: processes.cpu_s(members) for name, members in groups.items()},
        )

    async def reached(self, wanted: int) -> None:
        """Until so many are completed; looks 50 times a second."""
        last, since_s = -1, time.monotonic()
        while (done := await self.completed()) < wanted:
            if done != last:
                last, since_s = done, time.monotonic()
            elif time.monotonic() - since_s > 20:
                raise TimeoutError(f"no task was completed for 20 s, {wanted - done} are missing")
            await asyncio.sleep(LOOK_EVERY_S)


async def run(directory: Path, stamp: str, options: Options) -> Result:
    count = options.count or 20_000
    seconds = options.seconds or 4.0
    result = Result()
    async with (
        running(directory / "fleet", stamp, NOVAS, pace=0) as fleet,
        fleet.client() as client,
    ):
        pids = await fleet.listening(client, len(NOVAS))
        for nova in NOVAS:
            await client.wait(await client.submit({**NOOP, "nova": nova}), 30)
        address = bare_store.address_of(fleet.home)
        redis: Any = connect(address, name="bench", single=True)
        counters = Counters(redis)
        groups = await _groups(redis, fleet, pids)
        idle = [await counters.mark(groups)]
        await asyncio.sleep(IDLE_S)
        idle.append(await counters.mark(groups))
        await _queue(client, count)
        done_before = await counters.completed()
        await client.resume()
        marks = []
        for share in (1, 9):
            await counters.reached(done_before + count * share // 10)
            marks.append(await counters.mark(groups))
        await counters.reached(done_before + count)
        result.figures = _figures(idle, marks)
        result.figures["tasks"] = count
        result.figures["blocked"] = int(await redis.hget(keys.TASK_COUNTS, "blocked") or 0)
        result.figures["commands_by_name_per_task"] = await _named(client, counters, address)
        progress("throughput: baseline of the store")
        result.baseline["evalsha_per_s"] = round(await bare_store.scripts_per_s(address, seconds))
        await redis.aclose()
    progress("throughput: baseline of bare Ray actors")
    async with bare_ray(directory / "ray", stamp, "throughput", str(seconds)) as bare:
        result.baseline["ray_calls_in_turn_per_s"] = round(bare["in_turn_per_s"])
        result.baseline["ray_calls_pipelined_per_s"] = round(bare["pipelined_per_s"])
    rate = result.figures["tasks_per_s"]
    result.ratios = {
        "tasks_to_evalsha": ratio(rate, result.baseline["evalsha_per_s"]),
        "tasks_to_ray_calls_in_turn": ratio(rate, result.baseline["ray_calls_in_turn_per_s"]),
    }
    return result


async def _queue(client: Fleet, count: int) -> None:
    """Pause the fleet and queue so many no-ops."""
    await client.pause()
    progress(f"throughput: queueing {count} tasks")
    began_s = time.monotonic()
    lanes = [
        client.submit_many([NOOP] * (count // 8 + (1 if lane < count % 8 else 0)))
        for lane in range(8)
    ]
    await asyncio.gather(*lanes)
    progress(f"throughput: queued at {count / (time.monotonic() - began_s):.0f}/s")


def _figures(idle: list[Mark], busy: list[Mark]) -> dict[str, Any]:
    first, last = busy
    tasks, seconds = last.completed - first.completed, last.at_s - first.at_s
    anyway_per_s = (idle[1].reads - idle[0].reads) / (idle[1].at_s - idle[0].at_s)
    reads = last.reads - first.reads
    cpu_us = {
        name: round((last.cpu_s[name] - first.cpu_s[name]) / tasks * 1e6, 1) for name in last.cpu_s
    }
    return {
        "tasks_per_s": round(tasks / seconds, 1),
        "round_trips_per_task": round((reads - anyway_per_s * seconds) / tasks, 2),
        "round_trips_per_task_with_idle_ones": round(reads / tasks, 4),
        "round_trips_per_s_when_idle": round(anyway_per_s, 2),
        "scripts_per_task": round((last.scripts - first.scripts) / tasks, 4),
        # What a busy machine disturbs least: its sum bounds the rate that two quiet cores reach.
        "cpu_us_per_task": {**cpu_us, "sum": round(sum(cpu_us.values()), 1)},
    }


async def _groups(redis: Any, fleet: FleetUnderTest, novas: dict[str, int]) -> dict[str, list[int]]:
    """The fleet's processes by what they are."""
    store = int((await redis.info("server"))["process_id"])
    groups: dict[str, list[int]] = {
        "novas": list(novas.values()), "python_workers": [], "store": [store],
        "supervisor": [fleet.pid], "rest": [],
    }  # fmt: skip
    known = {pid for members in groups.values() for pid in members}
    for pid, command in processes.below(fleet.pid).items():
        if pid not in known:
            groups["python_workers" if "python_worker" in command else "rest"].append(pid)
    return groups


async def _named(client: Fleet, counters: Counters, address: StoreAddress) -> dict[str, float]:
    """Client commands per task by name, from MONITOR over a batch of their own."""
    await _queue(client, NAMED_TASKS)
    done = await counters.completed()
    reader, writer = await asyncio.open_unix_connection(address.path)
    writer.write(b"CLIENT SETNAME bench-monitor\r\nMONITOR\r\n")
    names: Counter[str] = Counter()

    async def count() -> None:
        while line := await reader.readline():
            # +1700000000.000000 [0 unix:/path] "EVALSHA" …; what a script calls comes from [0 lua]
            head, _, rest = line.decode(errors="replace").partition('] "')
            if rest and not head.endswith(" lua"):
                names[rest.partition('"')[0].lower()] += 1

    counting = asyncio.create_task(count())
    await client.resume()
    looks = 0
    while await counters.completed() < done + NAMED_TASKS:
        looks += 1
        await asyncio.sleep(LOOK_EVERY_S)
    counting.cancel()
    await asyncio.gather(counting, return_exceptions=True)
    writer.close()
    names["hget"] -= looks + 1  # ours
    return {
        name: round(calls / NAMED_TASKS, 4)
        for name, calls in names.most_common()
        if calls > 0 and name not in ("monitor", "client")
    }
