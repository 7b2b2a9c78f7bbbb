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
from novawf.limits.budget import Budgets
from novawf.limits.budget_config import BudgetSettings
from novawf.limits.budget_scopes import Payer
from novawf.limits.budget_view import settings_of
from novawf.limits.paying import Paying, provider_of
from novawf.limits.prices import prices_of
from novawf.limits.rate_limiter import RateLimiter
from novawf.safety.events import unpermitted
from novawf.why.records import limit_settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.limits.config import LimitSettings
    from novawf.limits.ledger import Permit as LedgerPermit
    from novawf.limits.request import ApiAnswer, ApiAsk
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
        self._budget = BudgetSettings()
        self._paying = self._by(self._budget)
        self._read_s = 0.0
        self._limiter: RateLimiter | None = None
        self._former: list[RateLimiter] = []

    @contextlib.asynccontextmanager
    async def request(self, ask: ApiAsk, tier: str) -> AsyncIterator[Permit]:
        """See `Fleet.api_request`."""
        limiter = await self._current()
        granted, paying = await self._granted(limiter, ask, tier)
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
            await asyncio.shield(_released(limiter, paying, granted, answer))

    async def _granted(
        self, limiter: RateLimiter, ask: ApiAsk, tier: str
    ) -> tuple[LedgerPermit, Paying]:
        """A permit, paid for; one whose time to begin passed over the paying is given back."""
        while True:
            granted = await limiter.acquire(tier, "client", limit=ask.limit)
            paying = self._paying
            try:
                payer = Payer(provider=provider_of(ask.limit), model=ask.model[:100])
                await paying.reserve(granted.id, ask, payer)
                if self._clock.now_ms() <= granted.start_by_ms:
                    return granted, paying
            except BaseException:
                await asyncio.shield(_given_back(limiter, paying, granted))
                raise
            await _given_back(limiter, paying, granted)

    async def close(self) -> None:
        """Send away who waits."""
        for limiter in (*self._former, self._limiter):
            if limiter is not None:
                await limiter.close()

    async def _current(self) -> RateLimiter:
        """The limiter by the settings that the fleet has now."""
        if self._limiter is not None and monotonic_s() - self._read_s < SETTINGS_S:
            return self._limiter
        said = await fleet_view.document(self._redis, self._address)
        settings, budget = limit_settings(said), settings_of(said)
        self._read_s = monotonic_s()
        if budget != self._budget:
            self._budget = budget
            self._paying = self._by(budget)
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

    def _by(self, budget: BudgetSettings) -> Paying:
        budgets = Budgets(self._redis, self._clock, budget, self._address)
        return Paying(budgets, budget, prices_of(budget))


async def _given_back(limiter: RateLimiter, paying: Paying, granted: LedgerPermit) -> None:
    """The request is not made."""
    await paying.release(granted.id)
    try:
        await limiter.void(granted.id, granted.limit)
    except NovawfError as error:
        _LOG.warning("permit %s keeps its place until its lease expires: %s", granted.id, error)


async def _released(
    limiter: RateLimiter, paying: Paying, granted: LedgerPermit, answer: ApiAnswer
) -> None:
    """The request was made: that its end cannot be told is no reason to make it again."""
    await paying.settle(granted.id, answer)
    try:
        await limiter.release(granted.id, answer, granted.limit)
    except NovawfError as error:
        _LOG.warning("permit %s keeps its place until its lease expires: %s", granted.id, error)
