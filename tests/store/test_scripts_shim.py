"""Scripts: how they are called, and what the shim of the tests refuses."""

from __future__ import annotations

from redis.asyncio import Redis


async def test_smoke(redis: Redis) -> None:
    """The fixture works."""
    assert await redis.ping()
