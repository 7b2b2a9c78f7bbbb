"""Twenty busy Novas for an hour (`--seconds`): does anything grow?

They run commands, Python callables and tasks that fail, at a steady rate; what is finished, and
what streams tell of it, leaves the store after three minutes, so that it too has a steady state.
After a warm-up of a fifth, memory (USS: what is shared tells of others) and descriptors of each
process are fitted by a line; logs are all files below the home and the Ray session, archives left
out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from pathlib import Path

import psutil

from novawf.client import Fleet
from tests.bench import processes
from tests.bench.fleet_under_test import FleetUnderTest, running
from tests.bench.measure import Options, Result, Target, progress

TARGETS = (
    Target("worst_memory_mb_per_hour", "<", 1.0),
    Target("worst_descriptors_per_hour", "<", 5.0),
    Target("logs_mb_per_hour", "<", 10.0),
)
LIMIT_S = 4500.0
NOVAS = tuple(f"n{number:02d}" for number in range(20))
EVERY_S = 15.0
SETTINGS = {
    "NOVAWF_TASKS__RETENTION_H": "0.05",
    "NOVAWF_STREAMS__MAX_AGE_H": "0.05",
    "NOVAWF_TASKS__BACKOFF_BASE_S": "0.5",
    "NOVAWF_SUPERVISION__MAX_RESTARTS": "1000",
}
KINDS = (
    {"title": "command", "argv": ["echo", "done"]},
    {"title": "callable", "callable": "bench_jobs:steady"},
    {"title": "steps", "callable": "bench_jobs:updates", "args": [3, 0.05]},
    {"title": "fails", "argv": ["false"], "retries": 1},
)
PER_S = 8.0
"""Tasks submitted a second."""


async def run(directory: Path, stamp: str, options: Options) -> Result:
    seconds = options.seconds or 3600.0
    result = Result()
    memory: dict[tuple[str, int], list[tuple[float, float]]] = {}
    files: dict[tuple[str, int], list[tuple[float, float]]] = {}
    logs: list[tuple[float, float]] = []
    async with (
        running(directory / "fleet", stamp, NOVAS, settings=SETTINGS) as fleet,
        fleet.client() as client,
    ):
        await fleet.listening(client, len(NOVAS), 120)
        feeder = asyncio.create_task(_feed(client))
        began_s = time.monotonic()
        try:
            while (at_s := time.monotonic() - began_s) < seconds:
                for role, pid in (await _roles(fleet, client)).items():
                    with contextlib.suppress(psutil.Error):
                        process = psutil.Process(pid)
                        uss_mb = processes.memory_mb([pid])["uss"]
                        memory.setdefault((role, pid), []).append((at_s, uss_mb))
                        files.setdefault((role, pid), []).append((at_s, process.num_fds()))
                logs.append((at_s, _logs_mb(directory / "fleet")))
                progress(f"soak: {at_s:.0f} of {seconds:g} s, logs {logs[-1][1]:.1f} MB")
                await asyncio.sleep(EVERY_S)
            counts = (await client.status())["tasks"]
        finally:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)
    warm_s = seconds / 5
    grows = {f"{role}:{pid}": _per_hour(seen, warm_s) for (role, pid), seen in memory.items()}
    opens = {f"{role}:{pid}": _per_hour(seen, warm_s) for (role, pid), seen in files.items()}
    worst = max(grows, key=lambda name: grows[name])
    result.figures = {
        "tasks": counts,
        "worst_memory_mb_per_hour": round(grows[worst], 2),
        "worst_memory_of": worst,
        "memory_mb_per_hour": {name: round(value, 2) for name, value in sorted(grows.items())},
        "worst_descriptors_per_hour": round(max(opens.values()), 2),
        "descriptors_per_hour": {name: round(value, 2) for name, value in sorted(opens.items())},
        "logs_mb_per_hour": round(_per_hour(logs, warm_s), 2),
    }
    return result


async def _roles(fleet: FleetUnderTest, client: Fleet) -> dict[str, int]:
    status = await client.status()
    roles = {nova["id"]: nova["pid"] for nova in status["novas"] if nova["pid"]}
    roles |= {actor["name"]: actor["pid"] for actor in status["actors"] if actor["pid"]}
    roles["supervisor"] = fleet.pid
    for pid, command in processes.below(fleet.pid).items():
        for role in ("valkey-server", "keeper_server", "sentinel", "raylet", "gcs_server"):
            if role in command.split(" ")[0] or f"processes.{role}" in command:
                roles.setdefault(role, pid)
    return roles


async def _feed(client: Fleet) -> None:
    for number, task in enumerate(itertools.cycle(KINDS)):
        await client.submit({**task, "nova": NOVAS[number % len(NOVAS)]} if number % 3 else task)
        await asyncio.sleep(1 / PER_S)


def _logs_mb(home: Path) -> float:
    total = 0
    for path in home.rglob("*.log*"):
        if "store" not in path.parts:
            with contextlib.suppress(OSError):
                total += path.stat().st_size
    return total / 1e6


def _per_hour(seen: list[tuple[float, float]], warm_s: float) -> float:
    """Slope of the least-squares line after the warm-up."""
    points = [point for point in seen if point[0] >= warm_s]
    if len(points) < 3:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 3600 * sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
