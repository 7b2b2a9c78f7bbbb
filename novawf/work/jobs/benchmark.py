"""Benchmark of the store from where this Nova is: a bounded number of small calls, timed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from novawf.clock import monotonic_s
from novawf.store import keys
from novawf.store.scripts import load_script
from novawf.work.jobs.table import JobContext

CALLS: Final = 20
"""Of each kind: enough for a p95, and about 4 kB sent."""

SLOW_MS: Final = 50.0

_EMPTY = load_script("novawf.work", "empty")


async def benchmark_store(context: JobContext, args: tuple[Any, ...]) -> dict[str, Any]:
    """`{"ping_ms", "script_ms", "xadd_ms": {"p50", "p95"}, "calls", "findings"}`."""
    client, key = context.client, keys.benchmark(context.nova)

    async def ping() -> None:
        await client.ping()

    async def script() -> None:
        await _EMPTY(context.redis, (key,), ())

    async def append() -> None:
        await client.xadd(key, {"benchmark": "1"}, maxlen=CALLS, approximate=False)

    measured = {
        "ping_ms": await _timed(ping),
        "xadd_ms": await _timed(append),
        "script_ms": await _timed(script),
    }
    findings = [
        f"one call in twenty ({name.removesuffix('_ms')}) takes {figures['p95']:.0f} ms"
        for name, figures in measured.items()
        if figures["p95"] > SLOW_MS
    ]
    return {**measured, "calls": CALLS * len(measured), "findings": findings}


async def _timed(call: Callable[[], Awaitable[None]]) -> dict[str, float]:
    times_ms = []
    for _ in range(CALLS):
        began_s = monotonic_s()
        await call()
        times_ms.append((monotonic_s() - began_s) * 1000)
    times_ms.sort()
    return {
        "p50": round(times_ms[len(times_ms) // 2], 3),
        "p95": round(times_ms[int(len(times_ms) * 0.95)], 3),
    }
