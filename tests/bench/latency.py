"""Submit → start on an idle fleet: from before `Fleet.submit` to the first thing the work does.

A Python task says itself when it began. A command is `date`, which says it about a millisecond
after it was started; the same `date` started without any fleet is its baseline. Each submission
waits until the fleet is idle again, and a random moment more, so that no timer is met in step.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

from novawf.client import Fleet
from tests.bench import bare_store
from tests.bench.baseline import bare_ray
from tests.bench.fleet_under_test import running, until
from tests.bench.measure import Options, Result, Target, progress, ratio, spread

TARGETS = (Target("python_start_ms.p50", "<=", 3.0),)
LIMIT_S = 300.0
NOVAS = ("torch", "echo", "helix")
DATE = ("date", "+%s%N")
PYTHON = {"title": "started", "callable": "bench_jobs:started"}


async def run(directory: Path, stamp: str, options: Options) -> Result:
    count = options.count or 200
    result = Result()
    async with running(directory / "fleet", stamp, NOVAS) as fleet, fleet.client() as client:
        await fleet.listening(client, len(NOVAS))
        for nova in NOVAS:  # each starts its Python worker with its first callable
            for _ in range(3):
                await client.wait(await client.submit({**PYTHON, "nova": nova}), 30)
        progress(f"latency: {count} python tasks, {count // 2} commands")
        starts, calls = [], []
        for _ in range(count):
            began_ns, called_ns, task = await _one(client, PYTHON)
            calls.append((called_ns - began_ns[0]) / 1e6)
            starts.append((int(task["results"]) - began_ns[0]) / 1e6)
        commands = []
        for _ in range(max(1, count // 2)):
            began_ns, _, task = await _one(client, {"title": "date", "argv": list(DATE)})
            commands.append((int(task["stdout_tail"]) - began_ns[1]) / 1e6)
        result.figures = {
            "python_start_ms": spread(starts),
            "command_start_ms": spread(commands),
            "submit_call_ms": spread(calls),
        }
        progress("latency: baselines of store and process start")
        address = bare_store.address_of(fleet.home)
        result.baseline["store_ping_ms"] = spread(await bare_store.pings(address, count, 0.02))
        result.baseline["store_hand_over_ms"] = spread(
            await bare_store.hand_overs(address, count, 0.05)
        )
        result.baseline["process_start_ms"] = spread(await _bare_commands(max(1, count // 2)))
    progress("latency: baseline of a bare Ray actor")
    async with bare_ray(directory / "ray", stamp, "latency", str(count)) as bare:
        result.baseline["ray_call_start_ms"] = spread(bare["start_ms"])
        result.baseline["ray_call_round_ms"] = spread(bare["round_ms"])
    ours, bare_p50 = result.figures, result.baseline
    python_ms = ours["python_start_ms"]["p50"]
    result.ratios = {
        "python_start_to_hand_over": ratio(python_ms, bare_p50["store_hand_over_ms"]["p50"]),
        "python_start_to_ray_call": ratio(python_ms, bare_p50["ray_call_start_ms"]["p50"]),
        "command_start_to_bare_process": ratio(
            ours["command_start_ms"]["p50"], bare_p50["process_start_ms"]["p50"]
        ),
    }
    return result


async def _one(client: Fleet, task: dict[str, Any]) -> tuple[tuple[int, int], int, dict[str, Any]]:
    """Submit once; (monotonic, wall) ns before, monotonic ns after the call, and the ended task."""
    await asyncio.sleep(random.uniform(0.08, 0.16))
    before = (time.monotonic_ns(), time.time_ns())
    task_id = await client.submit(task)
    called_ns = time.monotonic_ns()
    await asyncio.sleep(0.03)  # nobody asks for anything while it starts
    return before, called_ns, await _completed(client, task_id)


async def _completed(client: Fleet, task_id: str) -> dict[str, Any]:
    def completed(task: dict[str, Any]) -> dict[str, Any] | None:
        if task["status"] == "blocked":
            raise RuntimeError(f"the task failed: {json.dumps(task['last_attempt'])}")
        return task if task["status"] == "completed" else None

    return await until(lambda: client.task(task_id), completed, 15, f"{task_id} completed")


async def _bare_commands(count: int) -> list[float]:
    """The same program, started by this process."""
    found = []
    for _ in range(count):
        await asyncio.sleep(0.03)
        began_ns = time.time_ns()
        process = await asyncio.create_subprocess_exec(*DATE, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        found.append((int(output) - began_ns) / 1e6)
    return found
