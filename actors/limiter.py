"""The fleet's rate limiter as a Ray actor: a shell around `novawf.limits.rate_limiter`."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Any

from actors.shell import Shell
from novawf.clock import SystemClock
from novawf.limits.config import LimitSettings
from novawf.limits.rate_limiter import RateLimiter
from novawf.limits.request import ApiAnswer
from novawf.safety.events import unpermitted
from novawf.store.connect import StoreAddress, connect


class LimiterActor(Shell):
    """Grants permits over the whole fleet; windows and leases are in the store."""

    def __init__(self, store: StoreAddress, clock_offset_ms: int, settings: LimitSettings) -> None:
        self._store = store
        self._clock = SystemClock(clock_offset_ms)
        self._settings = settings
        self._limiter: RateLimiter | None = None
        self._started = asyncio.Event()

    def __repr__(self) -> str:
        return "limiter"

    async def start(self) -> dict[str, Any]:
        """Connect; answers its pid."""
        redis = connect(self._store, name="limiter")
        self._limiter = RateLimiter(
            redis,
            self._clock,
            self._settings,
            store=self._store,
            unpermitted=partial(unpermitted, redis, self._clock),
        )
        self.started = True
        self._started.set()
        return {"pid": os.getpid()}

    async def ping(self) -> None:
        """Answers: the event loop turns."""

    async def join(self) -> str:
        """Pends for as long as the actor lives."""
        await asyncio.Event().wait()
        return "ended"

    async def acquire(self, tier: str, caller: str, limit: str) -> dict[str, Any]:
        """Wait for a permit; answers it as a JSON object."""
        limiter = await self._ready()
        return (await limiter.acquire(tier, caller, limit=limit)).as_json()

    async def release(self, permit_id: str, answer: ApiAnswer, limit: str) -> None:
        """The request under a permit ended, well or not."""
        limiter = await self._ready()
        await limiter.release(permit_id, answer, limit)

    async def void(self, permit_id: str, limit: str) -> None:
        """A permit will not be used: its request did not start in time."""
        limiter = await self._ready()
        await limiter.void(permit_id, limit)

    async def _ready(self) -> RateLimiter:
        """A call may arrive while it still connects."""
        await self._started.wait()
        if self._limiter is None:
            raise RuntimeError("the limiter has not started")
        return self._limiter
