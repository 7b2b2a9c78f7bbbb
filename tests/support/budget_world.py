"""Budgets as the tests have them: caps, payers, what the store holds, and how it may be broken."""

from __future__ import annotations

from typing import Any

from novawf.clock import ManualClock
from novawf.limits.budget import KEYS
from novawf.limits.budget_config import BudgetSettings, Caps
from novawf.limits.budget_scopes import Payer, field, window_numbers
from novawf.limits.prices import Amount
from novawf.store import keys

HOUR_MS = 3_600_000
NOON_MS = 1_700_006_400_000 - 1_700_006_400_000 % 86_400_000 + 12 * HOUR_MS
USD = 1_000_000
TORCH = Payer(nova="torch", provider="anthropic", task="TORCH-1-00002a")

SETTINGS = BudgetSettings(
    usd_per_hour=10,
    usd_per_day=15,
    usd_total=40,
    tokens_per_hour=1000,
    unconfirmed_after_s=60,
    nova=Caps(usd_per_hour=6),
    novas={"echo": Caps(usd_per_hour=2, usd_per_day=3)},
    providers={"openai": Caps(usd_total=1)},
)


def cost(usd: float, tokens: int = 0) -> Amount:
    return Amount(round(usd * USD), tokens)


async def spent(redis: Any, clock: ManualClock, scope: str = "fleet", name: str = "") -> list[int]:
    """USD spent by an account this hour, this day and in all, in micro-USD."""
    at = window_numbers(clock.now_ms())
    names = [field(scope, name, window, "usd", *at) for window in ("hour", "day", "total")]
    return [int(value or 0) for value in await redis.hmget(keys.BUDGET_SPENT, names)]


async def contents(redis: Any) -> list[Any]:
    """All that the budgets keep."""
    return [
        *[await redis.hgetall(key) for key in KEYS[:4]],
        *[await redis.zrange(key, 0, -1, withscores=True) for key in KEYS[4:]],
    ]


TOTAL = "fleet|total|usd"
BROKEN = {
    "the meta is another type": ("set", keys.BUDGET_META, "", "x"),
    "the spending is another type": ("set", keys.BUDGET_SPENT, "", "x"),
    "the tasks are another type": ("set", keys.BUDGET_TASKS, "", "x"),
    "the reservations are another type": ("set", keys.BUDGET_RESERVATIONS, "", "x"),
    "the open ones are another type": ("set", keys.BUDGET_OPEN, "", "x"),
    "the ended ones are another type": ("set", keys.BUDGET_ENDED, "", "x"),
    "a future version": ("hset", keys.BUDGET_META, "version", "2"),
    "garbage as a version": ("hset", keys.BUDGET_META, "version", "\x00"),
    "no version": ("hdel", keys.BUDGET_META, "version", ""),
    "garbage in the sweep's bound": ("hset", keys.BUDGET_META, "swept_hour", "soon"),
    "garbage in a sum": ("hset", keys.BUDGET_SPENT, TOTAL, "12.5"),
    "a negative sum": ("hset", keys.BUDGET_SPENT, TOTAL, "-1"),
    "a sum beyond all bounds": ("hset", keys.BUDGET_SPENT, TOTAL, "9" * 16),
    "no total": ("hdel", keys.BUDGET_SPENT, TOTAL, ""),
    "garbage in the task's sum": ("hset", keys.BUDGET_TASKS, f"{TORCH.task}|usd", "x"),
}


async def break_store(redis: Any, how: str) -> None:
    verb, key, name, value = BROKEN[how]
    if verb == "set":
        await redis.delete(key)
        await redis.set(key, value)
    elif verb == "hset":
        await redis.hset(key, name, value)
    else:
        await redis.hdel(key, name)
