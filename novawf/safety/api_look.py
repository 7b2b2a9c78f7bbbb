"""What the API guardian looks at: circuit breakers, and budgets that are spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from novawf.limits.budget import Budgets
from novawf.limits.budget_scopes import why_spent
from novawf.limits.view import breaker_states
from novawf.safety.api_guardian import ApiFacts, Spent
from novawf.store import keys
from novawf.store.connect import translate_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.limits.budget_config import BudgetSettings
    from novawf.store.connect import StoreAddress


class ApiLook:
    """Two round trips. Raises StoreUnreachable, and CorruptState, which names its repair: then
    the guardian counts as unsafe, and nothing starts."""

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        budget: BudgetSettings,
        store: StoreAddress | str = "its URL",
    ) -> None:
        self._redis: Any = redis
        self._clock = clock
        self._budgets = Budgets(redis, clock, budget, store)
        self._store = store

    async def __call__(self) -> ApiFacts:
        """Now."""
        with translate_errors(self._store):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hgetall(keys.LIMIT_BREAKERS)
                pipe.hkeys(keys.NOVAS)
                breakers, novas = await pipe.execute()
        skew_s = self._clock.wall_s() - self._clock.now_ms() / 1000
        spent = await self._budgets.exhausted(novas=novas)
        return ApiFacts(
            tuple(name for name, state in breaker_states(breakers).items() if state != "closed"),
            tuple(Spent(each.name, why_spent(each, skew_s), each.until_ms or 0) for each in spent),
        )
