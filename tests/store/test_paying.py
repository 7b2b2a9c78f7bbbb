"""Requests are paid for: reserved with their permit, settled at their end, by what was told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from novawf.clock import ManualClock
from novawf.errors import BudgetSpent, CorruptState, StoreUnreachable
from novawf.limits.budget import Budgets
from novawf.limits.budget_config import BudgetSettings, Caps
from novawf.limits.budget_scopes import Payer
from novawf.limits.paying import Paying, provider_of
from novawf.limits.prices import prices_of
from novawf.limits.request import ApiAnswer, ApiAsk
from novawf.safety.api_look import ApiLook
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

TORCH = Payer(nova="torch", provider="anthropic", task="TORCH-1-000001")


def paying(redis: Redis, clock: ManualClock, **caps: Any) -> Paying:
    settings = BudgetSettings(**caps)
    return Paying(Budgets(redis, clock, settings), settings, prices_of(settings))


async def spent(redis: Any, account: str = "fleet") -> int:
    """Micro-USD in all."""
    return int(await redis.hget(keys.BUDGET_SPENT, f"{account}|total|usd") or 0)


@pytest.mark.parametrize(
    ("answer", "micro_usd"),
    [
        (ApiAnswer(ok=True), 400_000),
        (ApiAnswer(ok=True, cost_usd=0.31), 310_000),
        (ApiAnswer(ok=True, cost_usd=0.55), 550_000),
        (ApiAnswer(ok=False), 400_000),
        (ApiAnswer(ok=False, status=500), 400_000),
        (ApiAnswer(ok=False, status=429), 0),
        (ApiAnswer(ok=False, status=401), 0),
        (ApiAnswer(ok=False, status=429, cost_usd=0.1), 100_000),
    ],
    ids=[
        "as reserved",
        "less",
        "more",
        "failed",
        "ill",
        "sent away",
        "not known",
        "sent away, paid",
    ],
)
async def test_it_costs_what_was_told_else_what_was_reserved(
    redis: Redis, clock: ManualClock, answer: ApiAnswer, micro_usd: int
) -> None:
    pays = paying(redis, clock)
    await pays.reserve("p1", ApiAsk("anthropic", 0.40), TORCH)
    assert await spent(redis) == 400_000
    await pays.settle("p1", answer)
    for account in ("fleet", "nova:torch", "provider:anthropic"):
        assert await spent(redis, account) == micro_usd


async def test_one_that_was_not_made_costs_nothing(redis: Redis, clock: ManualClock) -> None:
    pays = paying(redis, clock)
    await pays.reserve("p1", ApiAsk(cost_usd=0.40), TORCH)
    await pays.release("p1")
    await pays.release("p1")
    assert await spent(redis) == 0


async def test_of_what_nothing_is_said_the_worst_counts_where_a_cap_applies(
    redis: Redis, clock: ManualClock
) -> None:
    free = paying(redis, clock)
    await free.reserve("p1", ApiAsk(), TORCH)
    await free.settle("p1", ApiAnswer(ok=True))
    assert await spent(redis) == 0
    capped = paying(redis, clock, nova=Caps(usd_per_day=5))
    await capped.reserve("p2", ApiAsk(), TORCH)
    assert await spent(redis) == 1_000_000


async def test_what_is_said_only_at_the_end_is_booked_then(
    redis: Redis, clock: ManualClock
) -> None:
    pays = paying(redis, clock)
    await pays.reserve("p1", ApiAsk(), TORCH)
    await pays.settle("p1", ApiAnswer(ok=True, cost_usd=0.25, tokens=10))
    assert await spent(redis) == 250_000


async def test_a_declared_cost_of_nothing_is_free_under_any_cap(
    redis: Redis, clock: ManualClock
) -> None:
    pays = paying(redis, clock, usd_total=0)
    await pays.reserve("p1", ApiAsk(cost_usd=0.0), TORCH)
    with pytest.raises(BudgetSpent):
        await pays.reserve("p2", ApiAsk(cost_usd=0.01), TORCH)


async def test_the_task_s_own_budget_holds_over_its_attempts(
    redis: Redis, clock: ManualClock
) -> None:
    payer = TORCH._replace(task_usd=1.0)
    pays = paying(redis, clock)
    await pays.reserve("p1", ApiAsk(cost_usd=0.7), payer)
    with pytest.raises(BudgetSpent) as caught:
        await pays.reserve("p2", ApiAsk(cost_usd=0.7), payer)
    assert caught.value.frees_in_s is None
    await pays.reserve("p3", ApiAsk(cost_usd=0.7), payer._replace(task="TORCH-1-000002"))


async def test_a_window_tells_when_it_ends(redis: Redis, clock: ManualClock) -> None:
    pays = paying(redis, clock, usd_per_hour=1)
    with pytest.raises(BudgetSpent) as caught:
        await pays.reserve("p1", ApiAsk(cost_usd=1.5), TORCH)
    left_ms = 3_600_000 - clock.now_ms() % 3_600_000
    assert caught.value.frees_in_s == left_ms / 1000


async def test_a_store_that_is_gone_lets_nothing_be_reserved_and_no_end_fail(
    clock: ManualClock, tmp_path: Path
) -> None:
    away = connect(StoreAddress.unix(tmp_path / "none.sock"), name="away")
    pays = paying(away, clock)
    with pytest.raises(StoreUnreachable):
        await pays.reserve("p1", ApiAsk(cost_usd=0.4), TORCH)
    await pays.settle("p1", ApiAnswer(ok=True))
    await away.aclose()


async def test_budgets_that_are_garbage_let_nothing_be_reserved(
    redis: Redis, clock: ManualClock
) -> None:
    await redis.set(keys.BUDGET_SPENT, "garbage")
    with pytest.raises(CorruptState, match="novawf budget repair"):
        await paying(redis, clock).reserve("p1", ApiAsk(cost_usd=0.4), TORCH)


@pytest.mark.parametrize(
    ("limit", "provider"),
    [("", ""), ("anthropic", "anthropic"), ("anthropic/alice", "anthropic"), ("0x.y", "")],
)
def test_the_provider_is_the_first_part_of_the_limit(limit: str, provider: str) -> None:
    assert provider_of(limit) == provider


async def test_the_guardian_sees_spent_budgets_and_open_breakers(
    redis: Any, clock: ManualClock
) -> None:
    settings = BudgetSettings(usd_per_day=1, nova=Caps(usd_per_hour=0.5))
    look = ApiLook(redis, clock, settings)
    await redis.hset(keys.NOVAS, "torch", "{}")
    assert (await look()).spent == ()
    pays = paying(redis, clock, usd_per_day=1, nova=Caps(usd_per_hour=0.5))
    await pays.reserve("p1", ApiAsk(cost_usd=0.5), TORCH)
    assert [each.nova for each in (await look()).spent] == ["torch"]
    await pays.reserve("p2", ApiAsk(cost_usd=0.5), TORCH._replace(nova="echo"))
    found = (await look()).spent
    assert sorted(each.nova for each in found) == ["", "torch"]
    assert all("is spent" in each.sentence and each.until_ms > clock.now_ms() for each in found)
    await redis.hset(keys.LIMIT_BREAKERS, "anthropic", "open|5|9|1||0")
    assert (await look()).broken == ("anthropic",)
    await redis.delete(keys.BUDGET_SPENT)
    await redis.set(keys.BUDGET_SPENT, "garbage")
    with pytest.raises(CorruptState, match="novawf budget repair"):
        await look()
