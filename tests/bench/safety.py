"""What a safety check costs, and whether it grows: rounds of all five mechanisms.

One process, one embedded store, no Ray. `empty` is a new fleet; `grown` has 150 Novas of which a
third is held, 10,000 safety events behind it, memories of a hundred hooks and cooldowns, long
streams, and new violations in every tenth round. A PING before each round is the baseline.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from novawf.clock import SystemClock
from novawf.safety.assembly import orchestrator_of
from novawf.safety.config import SafetySettings
from novawf.safety.events import Kind, SafetyEvent, report
from novawf.store import keys
from novawf.store.connect import connect
from novawf.store.embedded import EmbeddedStore
from novawf.workflow.identity import NovaBeat
from tests.bench.measure import Options, Result, Target, progress, ratio, spread

TARGETS = (
    Target("empty_ms.p99", "<=", 5.0),
    Target("grown_ms.p99", "<=", 5.0),
    Target("grown_to_empty", "<=", 1.5),
)
LIMIT_S = 300.0
NOVAS = 150
EVENTS = 10_000
PAUSE_S = 0.01


async def run(directory: Path, stamp: str, options: Options) -> Result:
    rounds = options.count or 1000
    result = Result()
    store = EmbeddedStore(directory)
    address = store.start()
    redis: Any = connect(address, name="bench")
    clock = SystemClock()
    try:
        for case in ("empty", "grown"):
            await redis.flushall()
            progress(f"safety: {rounds} rounds, {case}")
            if case == "grown":
                await fill(redis, clock)
            orchestrator = orchestrator_of(redis, clock, SafetySettings())
            for _ in range(30):  # what happened before is judged
                await orchestrator.round()
            checks, whole, pings = [], [], []
            for number in range(rounds):
                await asyncio.sleep(PAUSE_S)
                if case == "grown" and number % 10 == 0:
                    event = SafetyEvent(Kind.HOOK_FAILURE, f"hook-{number % 100}", "x", "n001")
                    await report(redis, clock, event)
                began_ns = time.monotonic_ns()
                await redis.ping()
                pings.append((time.monotonic_ns() - began_ns) / 1e6)
                began_ns = time.monotonic_ns()
                status = await orchestrator.round()
                whole.append((time.monotonic_ns() - began_ns) / 1e6)
                checks.append(status.check_s * 1000)
            result.figures |= {f"{case}_ms": spread(checks), f"{case}_written_ms": spread(whole)}
            result.baseline[f"{case}_ping_ms"] = spread(pings)
    finally:
        await redis.aclose()
        store.stop()
    result.ratios["grown_to_empty"] = ratio(
        result.figures["grown_ms"]["p50"], result.figures["empty_ms"]["p50"]
    )
    result.ratios["empty_to_ping"] = ratio(
        result.figures["empty_ms"]["p50"], result.baseline["empty_ping_ms"]["p50"]
    )
    return result


async def fill(redis: Any, clock: SystemClock) -> None:
    """A fleet that has seen a lot."""
    now_ms = clock.now_ms()
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(EVENTS):
            nova = f"n{number % (NOVAS // 3):03d}"
            kind = (Kind.HOOK_FAILURE, Kind.STACKED_COOLDOWN)[number % 2]
            event = SafetyEvent(kind, f"hook-{number % 100}", "it loops", nova)
            pipe.xadd(keys.SAFETY_EVENTS, event.fields() | {"at": now_ms - 4_000_000 + number})
        for number in range(NOVAS):
            beat = NovaBeat(1, 1, "work_discovery", "work_phase_1", "", 7, now_ms, now_ms, now_ms)
            pipe.hset(keys.NOVAS, f"n{number:03d}", beat.to_json())
        for number in range(50_000):
            pipe.xadd(keys.ENTERPRISE_METRICS, {"name": "tasks", "value": number})
        await pipe.execute()
