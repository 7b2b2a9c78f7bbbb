"""SIGKILL of a Nova in the middle of a long command → the command runs again.

The command writes the wall time of each of its starts into a file; only its first attempt is long.
`pinned` belongs to the Nova that is killed, which has to come back first, all others being busy;
`spare` is the same with standby Novas; `unpinned` may go to another, which is idle. Restarts come
at once here because a Nova counts as healthy after half a second, and the restart intensity is
raised: quarantine is another test's matter.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from novawf.client import Fleet
from tests.bench.baseline import bare_ray
from tests.bench.fleet_under_test import FleetUnderTest, running, until
from tests.bench.measure import Options, Result, Target, progress, ratio, spread

TARGETS = (
    Target("pinned_ms.p95", "<=", 1000.0),
    Target("spare_ms.p95", "<=", 300.0),
    Target("unpinned_ms.p95", "<=", 500.0),
)
LIMIT_S = 600.0
NOVAS = ("torch", "echo", "helix")
PINNED = "torch"
SETTINGS = {
    "NOVAWF_SUPERVISION__MAX_RESTARTS": "10000",
    "NOVAWF_SUPERVISION__HEALTHY_AFTER_S": "0.5",
}
JOB = 'date +%s%N >> "$0"; [ "$NOVAWF_ATTEMPT" != 1 ] || exec sleep 60'


SPARES = {"NOVAWF_SUPERVISION__SPARES": "1"}


async def run(directory: Path, stamp: str, options: Options) -> Result:
    kills = options.count or 50
    result = Result()
    for name, settings, nova in (
        ("pinned", {}, PINNED),
        ("spare", SPARES, PINNED),
        ("unpinned", {}, None),
    ):
        progress(f"recovery: {kills} kills, {name}")
        async with (
            running(directory / name, stamp, NOVAS, settings=SETTINGS | settings) as fleet,
            fleet.client() as client,
        ):
            await fleet.listening(client, len(NOVAS))
            if nova is not None:
                for other in NOVAS:
                    if other != nova:
                        busy = {"title": "busy", "argv": ["sleep", "3600"], "nova": other}
                        await client.submit(busy)
            rounds: list[dict[str, float]] = []
            after_s = 0.0
            for number in range(kills):
                if settings is SPARES:
                    await fleet.heard("spare_ready", 30, after_s=after_s)
                rounds.append(await _kill_once(fleet, client, directory / f"{name}-{number}", nova))
                after_s = time.monotonic() - rounds[-1].pop("ago_s")
            for figure in rounds[0]:
                key = f"{name}_ms" if figure == "again" else f"{name}_{figure}_ms"
                result.figures[key] = spread([one[figure] for one in rounds], 1)
    progress("recovery: baseline of a bare Ray actor")
    async with bare_ray(directory / "ray", stamp, "recovery", str(kills)) as bare:
        result.baseline = {
            "ray_actor_back_ms": spread(bare["back_ms"], 1),
            "ray_death_seen_ms": spread(bare["seen_ms"], 1),
        }
    back_ms = result.baseline["ray_actor_back_ms"]["p50"]
    result.ratios = {
        "pinned_to_bare": ratio(result.figures["pinned_ms"]["p50"], back_ms),
        "spare_to_bare": ratio(result.figures["spare_ms"]["p50"], back_ms),
        "unpinned_to_bare": ratio(result.figures["unpinned_ms"]["p50"], back_ms),
    }
    return result


async def _kill_once(
    fleet: FleetUnderTest, client: Fleet, starts: Path, nova: str | None
) -> dict[str, float]:
    """One kill; ms from it to each thing that follows."""
    pids = await fleet.listening(client, len(NOVAS), idle=nova is None)
    await asyncio.sleep(random.uniform(1.0, 1.5))
    task: dict[str, Any] = {
        "title": "long",
        "argv": ["/bin/sh", "-c", JOB, str(starts)],
        **({"nova": nova} if nova else {}),
    }
    task_id = await client.submit(task)
    await _started(starts, 1, 10)
    await asyncio.sleep(random.uniform(0.2, 0.6))
    owner = (await client.task(task_id))["owner"]
    killed_s, killed_ns = time.monotonic(), time.time_ns()
    os.kill(pids[owner], signal.SIGKILL)
    again_ns = (await _started(starts, 2, 30))[1]
    ended = await client.wait(task_id, 10)
    if ended["status"] != "completed" or ended["attempts"] != 2:
        raise RuntimeError(f"{task_id} is {ended['status']} after {ended['attempts']} attempts")
    came = {
        "seen": await fleet.heard("child_died", 5, after_s=killed_s, child=owner),
        "released": await fleet.heard("task_released", 5, after_s=killed_s, task=task_id),
        "nova_back": await fleet.heard("child_running", 30, after_s=killed_s, child=owner),
    }
    return {
        "again": (again_ns - killed_ns) / 1e6,
        "ago_s": time.monotonic() - killed_s,
        **{name: (said.at_s - killed_s) * 1000 for name, said in came.items()},
    }


async def _started(starts: Path, wanted: int, timeout_s: float) -> list[int]:
    """When the command began, so far; waits until that was `wanted` times."""

    def times(text: str) -> list[int] | None:
        lines = text.split("\n")[:-1]
        return [int(line) for line in lines] if len(lines) >= wanted else None

    def read() -> str:
        return starts.read_text() if starts.exists() else ""

    return await until(read, times, timeout_s, f"start {wanted} of the command", 0.005)
