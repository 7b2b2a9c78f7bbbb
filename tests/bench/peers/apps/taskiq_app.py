"""taskiq on Redis streams. Its task is an `async def`: what taskiq runs without a thread."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import marks
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(f"unix://{os.environ['PEERS_STORE']}")


@broker.task
async def noop() -> None:
    marks.mark()


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
