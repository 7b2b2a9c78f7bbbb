"""API requests of processes outside the fleet, under the fleet's limits.

A limiter of their own over the same permits: what is granted is decided in the store, so the limits
hold whoever asks. Only the line is this process's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING

from novawf import fleet_view
from novawf.clock import monotonic_s
from novawf.errors import NovawfError
from novawf.executors.context import Permit, RequestTimedOut, timed_out
from novawf.limits import provider
from novawf.limits.rate_limiter import RateLimiter
from novawf.safety.events import unpermitted
from novawf.why.records import limit_settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.limits.config import LimitSettings
    from novawf.limits.ledger import Permit as LedgerPermit
    from novawf.limits.request import ApiAnswer
    from novawf.store.connect import StoreAddress

_LOG = logging.getLogger(__name__)

SETTINGS_S = 5.0
"""What limits the fleet has is read anew after this: it may have been started with others."""


class ClientRequests:
    """The requests of one process."""

    def __init__(self, redis: Redis, clock: Clock, address: StoreAddress) -> None:
        self._redis = redis
        self._clock = clock
        self._address = address
        self._settings: LimitSettings | None = None
        self._read_s = 0.0
        self._limiter: RateLimiter | None = None
        self._former: list[RateLimiter] = []

    @contextlib.asynccontextmanager
    async def request(self, limit: str, tier: str) -> AsyncIterator[Permit]:
        """See `Fleet.api_request`."""
        limiter = await self._current()
        granted = await limiter.acquire(tier, "client", limit=limit)
        permit = Permit(granted.as_json())
        timeout_s = granted.timeout_ms / 1000
        error: BaseException | None = None
        try:
            async with asyncio.timeout(timeout_s) as time:
                yield permit
        except TimeoutError as timeout:
            error = timed_out(timeout_s) if time.expired() else timeout
            if isinstance(error, RequestTimedOut):
                raise error from timeout
            raise
        except BaseException as raised:
            error = raised
            raise
        finally:
            permit.ended_by(error)
            answer = provider.read(error is None, permit.said, self._clock.wall_s())
            # It is told also when this caller is cancelled meanwhile.
            await asyncio.shield(_released(limiter, granted, answer))

    async def close(self) -> None:
        """Send away who waits."""
        for limiter in (*self._former, self._limiter):
            if limiter is not None:
                await limiter.close()

    async def _current(self) -> RateLimiter:
        """The limiter by the settings that the fleet has now."""
        if self._limiter is not None and monotonic_s() - self._read_s < SETTINGS_S:
            return self._limiter
        settings = limit_settings(await fleet_view.document(self._redis, self._address))
        self._read_s = monotonic_s()
        if self._limiter is None or settings != self._settings:
            if self._limiter is not None:
                self._former.append(self._limiter)
            self._settings = settings
            self._limiter = RateLimiter(
                self._redis,
                self._clock,
                settings,
                store=self._address,
                unpermitted=partial(unpermitted, self._redis, self._clock),
            )
        return self._limiter


async def _released(limiter: RateLimiter, granted: LedgerPermit, answer: ApiAnswer) -> None:
    """The request was made: that its end cannot be told is no reason to make it again."""
    try:
        await limiter.release(granted.id, answer, granted.limit)
    except NovawfError as error:
        _LOG.warning("permit %s keeps its place until its lease expires: %s", granted.id, error)
