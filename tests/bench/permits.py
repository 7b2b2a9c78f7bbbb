"""How long a permit takes when one is free, with 50 callers, and whether history makes it longer.

Without Ray: limiters as the actor has them, each on a store of its own, side by side in the same
moment: one whose windows are empty, one with 500 grants in them, one with 100,000. Then the whole
way in a fleet, from a job in its worker over its Nova and the limiter's actor to the store.
Fifty callers each hold a permit for a while, rest and ask again; limits are so wide that one is
always free. The baseline is a bare round trip to the same stores under the same load.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path
from typing import Any

from novawf.limits.config import LimitSettings
from novawf.limits.rate_limiter import RateLimiter
from novawf.limits.request import OK
from novawf.store import keys
from tests.bench import queue_alone
from tests.bench.fleet_under_test import running
from tests.bench.hammer import START_S
from tests.bench.measure import Options, Result, Target, progress, ratio, spread
from tests.bench.queue_alone import QueueAlone

TARGETS = (
    Target("permit_ms_empty.p50", "<=", 2.0),
    Target("permit_ms_empty.p99", "<=", 10.0),
    Target("p50_500_to_empty", "<=", 1.25),
    Target("p50_100000_to_empty", "<=", 1.25),
)
LIMIT_S = 300.0
CALLERS = 50
HISTORIES = {"empty": 0, "500": 500, "100000": 100_000}
WIDE = LimitSettings(
    requests_per_minute=10_000_000, requests_per_hour=100_000_000, concurrent=1_000_000
)
HOLD_S = 0.05
REST_S = 0.2
TURN_S = 1.0


async def run(directory: Path, stamp: str, options: Options) -> Result:
    seconds = options.seconds or 10.0
    result = Result()
    found: dict[str, list[float]] = {name: [] for name in HISTORIES}
    bare: list[float] = []
    idle: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        worlds = {}
        for name, grants in HISTORIES.items():
            alone = await stack.enter_async_context(queue_alone.running(directory / name))
            await _grants(alone, grants)
            worlds[name] = alone, RateLimiter(alone.redis, alone.clock, WIDE)
        alone = worlds["empty"][0]
        for _ in range(300):
            idle.append(await _ping(alone))
        progress(f"permits: {seconds:g} s for each history, in turns of {TURN_S:g} s")
        for _ in range(max(1, round(seconds / TURN_S))):
            for name in random.sample(list(worlds), len(worlds)):
                alone, limiter = worlds[name]
                took, pings = await _turn(alone, limiter, TURN_S)
                found[name] += took
                bare += pings
    for name, took in found.items():
        result.figures[f"permit_ms_{name}"] = spread(took)
    result.baseline = {"bare_round_trip_ms": spread(bare), "idle_round_trip_ms": spread(idle)}
    p50 = result.figures["permit_ms_empty"]["p50"]
    result.ratios = {
        "p50_to_bare_round_trip": ratio(p50, result.baseline["bare_round_trip_ms"]["p50"]),
        "p99_to_bare_round_trip": ratio(
            result.figures["permit_ms_empty"]["p99"], result.baseline["bare_round_trip_ms"]["p99"]
        ),
        **{
            f"p50_{name}_to_empty": ratio(result.figures[f"permit_ms_{name}"]["p50"], p50)
            for name in HISTORIES
            if name != "empty"
        },
    }
    progress("permits: the whole way, in a fleet")
    for callers, took in (await _in_a_fleet(directory, stamp, seconds)).items():
        result.figures[f"whole_way_ms_{callers}_callers"] = spread(took)
    return result


async def _turn(
    alone: QueueAlone, limiter: RateLimiter, seconds: float
) -> tuple[list[float], list[float]]:
    """Permits and bare round trips of a while, ms."""
    took: list[float] = []
    pings: list[float] = []
    end_s = time.monotonic() + seconds

    async def caller(number: int) -> None:
        await asyncio.sleep(random.uniform(0, REST_S))
        while time.monotonic() < end_s:
            began_ns = time.monotonic_ns()
            permit = await limiter.acquire("medium", f"caller {number}")
            took.append((time.monotonic_ns() - began_ns) / 1e6)
            await asyncio.sleep(HOLD_S)
            await limiter.release(permit.id, OK)
            await asyncio.sleep(random.uniform(0.5, 1.5) * REST_S)

    async def look() -> None:
        while time.monotonic() < end_s:
            pings.append(await _ping(alone))
            await asyncio.sleep(random.uniform(0.5, 1.5) * 0.02)

    await asyncio.gather(look(), *(caller(number) for number in range(CALLERS)))
    return took, pings


async def _ping(alone: QueueAlone) -> float:
    began_ns = time.monotonic_ns()
    await alone.redis.ping()
    return (time.monotonic_ns() - began_ns) / 1e6


async def _grants(alone: QueueAlone, number: int) -> None:
    """A history of so many permits, spread over the last hour, all of them ended."""
    await alone.confirm_safety()
    now_ms = alone.clock.now_ms()
    for start in range(0, number, 5_000):
        some = range(start, min(number, start + 5_000))
        ages = {f"old-{n}": now_ms - 3_500_000 * n // number - 1 for n in some}
        await alone.redis.zadd(keys.LIMIT_GRANTS, ages)
    if number:
        await alone.redis.hset(keys.LIMIT_COUNTS, mapping={"granted": number, "ok": number})


async def _in_a_fleet(directory: Path, stamp: str, seconds: float) -> dict[int, list[float]]:
    settings = {
        "NOVAWF_LIMITS__REQUESTS_PER_MINUTE": str(WIDE.requests_per_minute),
        "NOVAWF_LIMITS__REQUESTS_PER_HOUR": str(WIDE.requests_per_hour),
        "NOVAWF_LIMITS__CONCURRENT": str(WIDE.concurrent),
    }
    found: dict[int, Any] = {}
    async with (
        running(directory / "fleet", stamp, ("torch",), settings=settings, wait=False) as fleet,
        contextlib.AsyncExitStack() as stack,
    ):
        await fleet.heard("fleet_started", START_S)
        client = await stack.enter_async_context(fleet.client())
        await fleet.listening(client, 1)
        for callers in (1, CALLERS):
            task = {"title": f"{callers} callers", "callable": "bench_jobs:permits"}
            task_id = await client.submit({**task, "args": [callers, seconds, HOLD_S, REST_S]})
            ended = await client.wait(task_id, seconds + 60)
            if ended["status"] != "completed":
                raise RuntimeError(f"the job failed: {ended['last_attempt']}")
            found[callers] = ended["results"]
    return found
