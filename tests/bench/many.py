"""150 Novas on this machine, beside as many bare Ray actors: time until ready, memory, idle
processor time; and what the fleet is like then: `Fleet.status`, and a new command on each Nova.

Ready is counted from the first actor that is created to the last that answers, in both. `--count`
is the number of Novas.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.bench import processes
from tests.bench.baseline import bare_ray
from tests.bench.fleet_under_test import running
from tests.bench.latency import DATE, _completed
from tests.bench.measure import Options, Result, Target, progress, ratio, spread

TARGETS = (
    Target("ready_to_bare", "<=", 1.2),
    Target("memory_to_bare", "<=", 1.3),
    Target("idle_cores_beyond_bare", "<=", 0.25),
    Target("status_ms.p95", "<=", 50.0),
    Target("command_start_ms.p95", "<=", 20.0),
)
LIMIT_S = 900.0
READY_S = 400.0
SETTLE_S = 20.0
ROUNDS = 3
"""Commands on each Nova. The first of its life is slower: its code was never run."""


async def run(directory: Path, stamp: str, options: Options) -> Result:
    count, seconds = options.count or 150, options.seconds or 30.0
    novas = tuple(f"n{number:03d}" for number in range(count))
    result = Result()
    progress(f"many: {count} Novas")
    async with (
        running(directory / "fleet", stamp, novas, wait=False) as fleet,
    ):
        first_s = (await fleet.heard("child_starting", 60)).at_s
        ready_s = (await fleet.heard("fleet_started", READY_S)).at_s - first_s
        async with fleet.client() as client:
            pids = await fleet.listening(client, count, READY_S)
            await asyncio.sleep(SETTLE_S)
            actors = [row["pid"] for row in (await client.status())["actors"]]
            known = {*pids.values(), *actors, fleet.pid}
            ray = [
                pid
                for pid, command in processes.below(fleet.pid).items()
                if pid not in known and ("ray" in command or "gcs_server" in command)
            ]
            progress(f"many: idle for {seconds:g} s")
            # All but Ray's own: what the fleet adds to it.
            ours = [*pids.values(), *actors, fleet.pid]
            store = [
                pid for pid, command in processes.below(fleet.pid).items() if "valkey" in command
            ]
            busy = {"ours": [*ours, *store], "novas": list(pids.values()), "ray": ray}
            cpu = await cores(busy, seconds)
            memory = processes.memory_mb(pids.values())
            # What the Novas share with the process that they are forks of, it has for them.
            below = processes.below(fleet.pid).items()
            shared = [pid for pid, command in below if "actors.forkserver" in command][:1]
            fork_mb = processes.memory_mb(shared)["pss"] if shared else 0.0
            progress("many: status, and a command on each")
            took = []
            for _ in range(50):
                began_s = time.monotonic()
                await client.status()
                took.append((time.monotonic() - began_s) * 1000)
            starts: list[list[float]] = []
            for _ in range(ROUNDS):
                starts.append([])
                for nova in novas:
                    began_ns = time.time_ns()
                    task = {"title": "date", "argv": list(DATE), "nova": nova}
                    ended = await _completed(client, await client.submit(task))
                    starts[-1].append((int(ended["stdout_tail"]) - began_ns) / 1e6)
        result.figures = {
            "ready_s": round(ready_s, 1),
            "cores": cpu,
            "memory_mb_per_nova": memory,
            "memory_mb_fork_server": fork_mb,
            "memory_mb_supervisor": processes.memory_mb([fleet.pid]),
            "status_ms": spread(took),
            "command_start_ms": spread([took for round_ in starts for took in round_]),
            "first_command_start_ms": spread(starts[0]),
        }
    progress(f"many: {count} bare actors")
    async with bare_ray(directory / "ray", stamp, "many", str(count)) as bare:
        await asyncio.sleep(SETTLE_S)
        below = [pid for pid in processes.below(bare["driver"]) if pid not in bare["pids"]]
        busy = {"ours": [*bare["pids"], bare["driver"]], "novas": bare["pids"], "ray": below}
        bare_cpu = await cores(busy, seconds)
        result.baseline = {
            "ready_s": round(bare["ready_s"], 1),
            "cores": bare_cpu,
            "memory_mb_per_actor": processes.memory_mb(bare["pids"]),
        }
    result.figures["idle_cores_beyond_bare"] = round(
        cpu["ours"] + cpu["ray"] - bare_cpu["ours"] - bare_cpu["ray"], 3
    )
    result.figures["ready_to_bare"] = round(ready_s / bare["ready_s"], 3)
    result.figures["memory_to_bare"] = ratio(
        memory["pss"] + fork_mb / count, result.baseline["memory_mb_per_actor"]["pss"]
    )
    return result


async def cores(groups: dict[str, list[int]], seconds: float) -> dict[str, float]:
    """Cores that each group used meanwhile; this process sleeps."""
    before = {name: processes.cpu_s(pids) for name, pids in groups.items()}
    await asyncio.sleep(seconds)
    return {
        name: round((processes.cpu_s(pids) - before[name]) / seconds, 3)
        for name, pids in groups.items()
    }
