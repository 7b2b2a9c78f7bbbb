"""A safety verdict for tests of what asks the gate: without one nothing is granted."""

from __future__ import annotations

from typing import Any

from novawf.store import keys

FOR_EVER_MS = 2**52


async def open_gate(redis: Any) -> None:
    """Write a verdict that says safe and does not expire."""
    await redis.hset(keys.GATE, mapping={"verdict": "safe", "valid_until": FOR_EVER_MS})
