"""Callables that test fleets run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def add(ctx: Any, left: int, right: int) -> int:
    return left + right


def who(ctx: Any) -> dict[str, Any]:
    ctx.progress(50, "half way")
    return {"task": ctx.task_id, "attempt": ctx.attempt, "nova": ctx.nova, "pid": os.getpid()}


async def call_api(ctx: Any) -> str:
    async with ctx.api_request():
        return "called"


def crash(ctx: Any) -> None:
    os._exit(7)


def fail_once(ctx: Any, marker: str) -> str:
    path = Path(marker)
    if not path.exists():
        path.touch()
        raise RuntimeError("the first time")
    return "the second time"


def block(ctx: Any, seconds: float) -> None:
    time.sleep(seconds)


async def call_paid_api(ctx: Any, most_usd: float, cost_usd: float | None = None) -> str:
    """A call that may cost so much, and did cost that; what it cost is told where it is known."""
    async with ctx.api_request(cost_usd=most_usd) as permit:
        permit.answered(status=200, cost_usd=cost_usd)
        return str(permit["id"])


async def call_api_and_note(ctx: Any, log: str, seconds: float) -> None:
    """A call as its callee sees it: when it began and ended, CLOCK_MONOTONIC in ns."""
    import asyncio

    async with ctx.api_request():
        began_ns = time.monotonic_ns()
        await asyncio.sleep(seconds)
        with Path(log).open("a") as file:
            file.write(f"{began_ns} {time.monotonic_ns()}\n")


def fail_with(ctx: Any, text: str) -> None:
    """End with an exception that quotes what it was given, as exceptions do."""
    raise ValueError(text)
