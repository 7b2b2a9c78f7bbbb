"""What the benchmarks let Novas run. Found by `[executors.python] path`; imports nothing big."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from typing import Any


def noop(_ctx: Any) -> None:
    """Nothing at all."""


def started(_ctx: Any) -> int:
    """When it began: CLOCK_MONOTONIC in ns, the same for every process of a machine."""
    return time.monotonic_ns()


def updates(ctx: Any, number: int, pause_s: float) -> None:
    """So many progress records that carry when they were posted (CLOCK_MONOTONIC, ns)."""
    for done in range(number):
        time.sleep(random.uniform(0.5, 1.5) * pause_s)
        ctx.progress(100 * done / number, str(time.monotonic_ns()))


def steady(_ctx: Any) -> None:
    """Work that takes time, and little of the processor."""
    time.sleep(0.01)


def hammer(ctx: Any, port: int, seconds: float) -> int:
    """Send one request after the other to a callee on loopback, as fast as permits come."""
    until_s, sent = time.monotonic() + seconds, 0
    while time.monotonic() < until_s:
        with ctx.api_request(), socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            while connection.recv(4096):
                pass
        sent += 1
    return sent


async def permits(
    ctx: Any, callers: int, seconds: float, hold_s: float, rest_s: float
) -> list[float]:
    """Ask for permits, so many coroutines at a time; how long each took, ms."""
    end_s, took = time.monotonic() + seconds, []

    async def one() -> None:
        await asyncio.sleep(random.uniform(0, rest_s))
        while time.monotonic() < end_s:
            began_ns = time.monotonic_ns()
            async with ctx.api_request():
                took.append(round((time.monotonic_ns() - began_ns) / 1e6, 3))
                await asyncio.sleep(hold_s)
            await asyncio.sleep(random.uniform(0.5, 1.5) * rest_s)

    await asyncio.gather(*(one() for _ in range(callers)))
    return took
