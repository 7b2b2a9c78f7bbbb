"""A critical wake signal to an idle Nova: XADD by a plain client → first line of the work.

What any outside program would do: one XADD to `nova.coordination.NOVA`, by a client that knows
nothing of NOVAWF. It is read, classified, admitted, claimed and begun; the work notes when. The
baseline is one hand-over by the same store (LPUSH → BLPOP between two processes): a message to a
fleet needs two, to whoever reads the streams and to the Nova.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from novawf.store import keys
from novawf.store.connect import connect
from tests.bench import bare_store
from tests.bench.fleet_under_test import running
from tests.bench.measure import Options, Result, Target, progress, ratio, spread
from tests.bench.peers.apps import marks
from tests.bench.peers.systems import APPS

TARGETS = (Target("wake_start_ms.p95", "<=", 10.0),)
LIMIT_S = 300.0
NOVAS = ("torch", "echo", "helix")
AIMED = "torch"
MESSAGE = {
    "message": "Database is down",
    "sender": "monitor",
    "priority": "critical",
    "callable": "marks:noop",
}


async def run(directory: Path, stamp: str, options: Options) -> Result:
    count = options.count or 200
    result = Result()
    noted = directory / "marks"
    noted.mkdir()
    settings = {"NOVAWF_EXECUTORS__PYTHON__PATH": str(APPS), "PEERS_MARKS": str(noted)}
    async with (
        running(directory / "fleet", stamp, NOVAS, settings=settings) as fleet,
        fleet.client() as client,
    ):
        await fleet.listening(client, len(NOVAS))
        for _ in range(3):
            task = {"title": "warm", "callable": "marks:noop", "nova": AIMED}
            await client.wait(await client.submit(task), 30)
        address = bare_store.address_of(fleet.home)
        redis: Any = connect(address, name="bench", single=True)
        await asyncio.sleep(1.0)
        progress(f"wake: {count} signals")
        before = marks.count(noted)

        async def signal() -> None:
            await redis.xadd(keys.coordination(AIMED), MESSAGE)

        sent = await marks.one_at_a_time(signal, count, noted)
        began = marks.starts(noted)[before + 1 :]
        result.figures = {
            "wake_start_ms": spread(
                [(start - at) / 1e6 for start, at in zip(began, sent["sent_ns"], strict=True)]
            ),
            "xadd_call_ms": spread(sent["call_ms"]),
        }
        tasks = await client.status()
        result.figures["blocked"] = tasks["tasks"]["blocked"]
        progress("wake: baseline of the store")
        result.baseline["store_hand_over_ms"] = spread(
            await bare_store.hand_overs(address, count // 2, 0.05)
        )
        await redis.aclose()
    result.ratios["wake_to_two_hand_overs"] = ratio(
        result.figures["wake_start_ms"]["p50"],
        2 * result.baseline["store_hand_over_ms"]["p50"],
    )
    return result
