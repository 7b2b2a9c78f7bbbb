"""What three idle Novas cost: processor, memory and store traffic, beside three bare Ray actors.

Both are at their default pace with nothing to do, in equal Ray sessions one after the other. The
bare ones are asynchronous actors with one pending call, as Novas are watched by one.
"""

from __future__ import annotations

import asyncio
import time
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
    Target("nova_sends_mb_per_hour", "<=", 0.3),
)
LIMIT_S = 300.0
NOVAS = ("torch", "echo", "helix")
SETTLE_S = 5.0


async def run(directory: Path, stamp: str, options: Options) -> Result:
    seconds = options.seconds or 60.0
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
        sent_before, received_before = await _traffic(redis)
        began_s = time.monotonic()
        cpu = await _cpu(groups, seconds)
        sent_after, received_after = await _traffic(redis)
        hours = (time.monotonic() - began_s) / 3600
        sent = _hourly(sent_before, sent_after, hours)
        received = _hourly(received_before, received_after, hours)
        memory = processes.memory_mb(novas.values())
        result.figures = {
            "cpu_percent_of_core": cpu,
            "memory_mb_per_nova": memory,
            "memory_mb_supervisor": processes.memory_mb([fleet.pid]),
            "memory_mb_shared_actor": processes.memory_mb(groups["shared_actors"]),
            "nova_sends_mb_per_hour": round(_of_novas(sent) / len(NOVAS), 4),
            "nova_receives_mb_per_hour": round(_of_novas(received) / len(NOVAS), 4),
            "sent_mb_per_hour_by_client": sent,
            "received_mb_per_hour_by_client": received,
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


async def _traffic(redis: Any) -> tuple[Counter[str], Counter[str]]:
    """Bytes that clients sent and received so far, by the server's count, by client name."""
    sent: Counter[str] = Counter()
    received: Counter[str] = Counter()
    for client in await redis.client_list():
        if not client["name"].startswith(("bench", "novawf-client")):
            sent[client["name"]] += int(client["tot-net-in"])
            received[client["name"]] += int(client["tot-net-out"])
    return sent, received


def _hourly(before: Counter[str], after: Counter[str], hours: float) -> dict[str, float]:
    """MB an hour of each client; one that came meanwhile counts from nothing."""
    return {name: round((after[name] - before[name]) / 1e6 / hours, 4) for name in sorted(after)}


def _of_novas(hourly: dict[str, float]) -> float:
    return sum(value for name, value in hourly.items() if name.startswith("nova-"))
