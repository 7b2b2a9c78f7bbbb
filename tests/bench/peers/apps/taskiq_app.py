"""taskiq on Redis streams: the plain function that all systems run, and (PEERS_ASYNC) a coroutine.

taskiq hands a plain function to a thread; a coroutine it runs at once, up to 100 side by side.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import marks
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(f"unix://{os.environ['PEERS_STORE']}")


@broker.task
def plain() -> None:
    marks.mark()


@broker.task
async def coroutine() -> None:
    marks.mark()


noop: Any = coroutine if os.environ.get("PEERS_ASYNC") else plain


async def main(mode: str, number: int) -> dict[str, Any]:
    await broker.startup()
    try:
        if mode == "latency":
            return await marks.one_at_a_time(noop.kiq, number)

        async def lane(share: int) -> None:
            for _ in range(share):
                await noop.kiq()

        began_s = time.monotonic()
        await asyncio.gather(*(lane(share) for share in marks.shares(number, 8)))
        return {"queued_per_s": number / (time.monotonic() - began_s)}
    finally:
        await broker.shutdown()
