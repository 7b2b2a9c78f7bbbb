"""What three idle Novas cost: processor, memory and store traffic, beside three bare Ray actors.

Both are at their default pace with nothing to do, in equal Ray sessions one after the other. The
bare ones are asynchronous actors with one pending call, as Novas are watched by one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from novawf.store.connect import connect
from tests.bench import bare_store, processes
from tests.bench.baseline import bare_ray
from tests.bench.fleet_under_test import running
from tests.bench.measure import Options, Result, Target, progress, ratio

TARGETS = (
    Target("novas_beyond_bare_percent_of_core", "<=", 5.0),
    Target("nova_uss_to_bare", "<=", 1.4),
    Target("nova_pss_to_bare", "<=", 1.4),
)
LIMIT_S = 300.0
NOVAS = ("torch", "echo", "helix")
SETTLE_S = 5.0


async def run(directory: Path, stamp: str, options: Options) -> Result:
    seconds = options.seconds or 30.0
    result = Result()
    async with running(directory / "fleet", stamp, NOVAS) as fleet, fleet.client() as client:
        novas = await fleet.listening(client, len(NOVAS))
        status = await client.status()
        address = bare_store.address_of(fleet.home)
        redis: Any = connect(address, name="bench")
        store = int((await redis.info("server"))["process_id"])
        groups = {
            "novas": list(novas.values()),
            "supervisor": [fleet.pid],
            "shared_actors": [actor["pid"] for actor in status["actors"]],
            "store": [store],
        }
        known = {pid for members in groups.values() for pid in members}
        groups["ray"] = [
            pid
            for pid, command in processes.below(fleet.pid).items()
            if pid not in known and ("ray" in command or "gcs_server" in command)
        ]
        await asyncio.sleep(SETTLE_S)
        progress(f"idle: three Novas for {seconds:g} s")
        traffic_before = await _traffic(redis)
        cpu = await _cpu(groups, seconds)
        traffic_after = await _traffic(redis)
        hourly = {
            name: round((traffic_after[name] - traffic_before[name]) / seconds * 3600)
            for name in traffic_after
        }
        nova_bytes = sum(v for name, v in hourly.items() if name.startswith("nova-"))
        memory = processes.memory_mb(novas.values())
        result.figures = {
            "cpu_percent_of_core": cpu,
            "memory_mb_per_nova": memory,
            "memory_mb_supervisor": processes.memory_mb([fleet.pid]),
            "memory_mb_shared_actor": processes.memory_mb(groups["shared_actors"]),
            "store_bytes_per_nova_hour": round(nova_bytes / len(NOVAS)),
            "store_bytes_per_hour_by_client": hourly,
        }
        await redis.aclose()
    async with bare_ray(directory / "ray", stamp, "idle") as bare:
        await asyncio.sleep(SETTLE_S)
        progress(f"idle: three bare actors for {seconds:g} s")
        ray = [pid for pid in processes.below(bare["driver"]) if pid not in bare["pids"]]
        bare_cpu = await _cpu(
            {"actors": bare["pids"], "driver": [bare["driver"]], "ray": ray}, seconds
        )
        result.baseline = {
            "cpu_percent_of_core": bare_cpu,
            "memory_mb_per_actor": processes.memory_mb(bare["pids"]),
        }
    result.figures["novas_beyond_bare_percent_of_core"] = round(
        cpu["novas"] - bare_cpu["actors"], 2
    )
    bare_memory = result.baseline["memory_mb_per_actor"]
    result.ratios = {
        "nova_uss_to_bare": ratio(memory["uss"], bare_memory["uss"]),
        "nova_pss_to_bare": ratio(memory["pss"], bare_memory["pss"]),
        "cpu_to_bare": ratio(cpu["novas"], bare_cpu["actors"]),
    }
    return result


async def _cpu(groups: dict[str, list[int]], seconds: float) -> dict[str, float]:
    """Per cent of one core that each group used meanwhile; this process sleeps."""
    before = {name: processes.cpu_s(pids) for name, pids in groups.items()}
    await asyncio.sleep(seconds)
    return {
        name: round((processes.cpu_s(pids) - before[name]) / seconds * 100, 2)
        for name, pids in groups.items()
    }


async def _traffic(redis: Any) -> Counter[str]:
    """Bytes in both directions so far, by client name."""
    found: Counter[str] = Counter()
    for client in await redis.client_list():
        if not client["name"].startswith(("bench", "novawf-client")):
            found[client["name"]] += int(client["tot-net-in"]) + int(client["tot-net-out"])
    return found
