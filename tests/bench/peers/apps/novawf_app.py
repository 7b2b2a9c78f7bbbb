"""NOVAWF by its public interface. `queue` pauses the fleet first, `go` lets it work again."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import marks

from novawf.client import Fleet

NOOP = {"title": "noop", "callable": "marks:noop"}


async def main(mode: str, number: int) -> dict[str, Any]:
    async with Fleet.connect(home=os.environ["PEERS_HOME"]) as fleet:
        if mode == "latency":
            return await marks.one_at_a_time(lambda: fleet.submit(NOOP), number)
        if mode == "warm":  # each Nova starts its Python worker with its first callable
            for nova in os.environ["PEERS_NOVAS"].split(","):
                await fleet.wait(await fleet.submit({**NOOP, "nova": nova}), 30)
        elif mode == "queue":
            await fleet.pause()
            began_s = time.monotonic()
            lanes = [fleet.submit_many([NOOP] * share) for share in marks.shares(number, 8)]
            await asyncio.gather(*lanes)
            return {"queued_per_s": number / (time.monotonic() - began_s)}
        elif mode == "go":
            await fleet.resume()
    return {}
