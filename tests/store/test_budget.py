"""Budgets on a real store: what is reserved, what is booked, and what refuses a call."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from budget_world import (
    BROKEN,
    HOUR_MS,
    NOON_MS,
    SETTINGS,
    TORCH,
    USD,
    break_store,
    contents,
    cost,
    spent,
)
from losing_proxy import LosingProxy

from novawf.clock import ManualClock
from novawf.errors import BudgetSpent, CorruptState, NotFound, Refused, StoreUnreachable, UserError
from novawf.limits.budget import KEPT_MS, KEYS, Budgets
from novawf.limits.budget_config import BudgetSettings
from novawf.limits.budget_scopes import (
    Payer,
    ReservationState,
    field,
    parse_reservation,
    window_numbers,
)
from novawf.limits.prices import Amount
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect

if TYPE_CHECKING:
    from redis.asyncio import Redis


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON_MS)


@pytest.fixture
def budgets(redis: Redis, clock: ManualClock) -> Budgets:
    return Budgets(redis, clock, SETTINGS)


async def test_a_reservation_counts_as_spent_at_once_on_every_account(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """Fleet, Nova, provider and task, in each window."""
    made = await budgets.reserve("r1", cost(1.5, 100), TORCH)
    assert made.state is ReservationState.OPEN
    for account in (("fleet", ""), ("nova", "torch"), ("provider", "anthropic")):
        assert await spent(redis, clock, *account) == [1_500_000] * 3
    assert await redis.hgetall(keys.BUDGET_TASKS) == {
        "TORCH-1-00002a|usd": "1500000",
        "TORCH-1-00002a|tokens": "100",
    }


async def test_settling_books_the_truth_below_and_above_what_was_reserved(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """The truth is booked even beyond every cap, and then nothing fits any more."""
    await budgets.reserve("below", cost(2), TORCH)
    await budgets.reserve("above", cost(2), TORCH)
    assert await budgets.settle("below", 123_456)
    assert await budgets.settle("above", 20 * USD)
    assert await spent(redis, clock) == [20_123_456] * 3
    with pytest.raises(BudgetSpent):
        await budgets.reserve("next", cost(0.000001), TORCH)


async def test_a_call_belongs_to_the_windows_in_which_it_was_reserved(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """However late it ends."""
    await budgets.reserve("r1", cost(2), TORCH)
    before = window_numbers(clock.now_ms())
    clock.advance(HOUR_MS)
    await budgets.settle("r1", 3 * USD)
    assert await spent(redis, clock) == [0, 3 * USD, 3 * USD]
    old = field("fleet", "", "hour", "usd", *before)
    assert await redis.hget(keys.BUDGET_SPENT, old) == str(3 * USD)


@pytest.mark.parametrize(
    ("payer", "usd", "tokens", "scope", "name", "window", "until"),
    [
        (Payer(), 10.000001, 0, "fleet", "", "hour", NOON_MS + HOUR_MS),
        (Payer(), 15.000001, 0, "fleet", "", "day", NOON_MS + 12 * HOUR_MS),
        (Payer(), 40.000001, 0, "fleet", "", "total", None),
        (Payer(), 1, 1001, "fleet", "", "hour", NOON_MS + HOUR_MS),
        (Payer(nova="torch"), 6.000001, 0, "nova", "torch", "hour", NOON_MS + HOUR_MS),
        (Payer(nova="echo"), 3.000001, 0, "nova", "echo", "day", NOON_MS + 12 * HOUR_MS),
        (Payer(provider="openai"), 1.000001, 0, "provider", "openai", "total", None),
        (Payer(task="T-1-1", task_usd=0.5), 0.500001, 0, "task", "T-1-1", "total", None),
        (Payer(task="T-1-1", task_usd=0), 0.000001, 0, "task", "T-1-1", "total", None),
    ],
)
async def test_a_call_that_does_not_fit_is_refused_and_names_the_budget_that_frees_last(
    redis: Any,
    budgets: Budgets,
    payer: Payer,
    usd: float,
    tokens: int,
    scope: str,
    name: str,
    window: str,
    until: int | None,
) -> None:
    """One cell for each kind of account and window; nothing is half-written."""
    with pytest.raises(BudgetSpent) as refused:
        await budgets.reserve("r1", cost(usd, tokens), payer)
    error = refused.value
    assert (error.scope, error.name, error.window) == (scope, name, window)
    assert error.until_ms == until
    assert not await redis.exists(*KEYS)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.until_ms) == (str(error), until)


async def test_a_cap_may_be_used_up_to_the_last_micro_usd(budgets: Budgets) -> None:
    """Spent + amount ≤ cap, exactly."""
    payer = Payer(task="T-1-1", task_usd=0.3)
    for number in range(3):
        await budgets.reserve(f"r{number}", cost(0.1), payer)
    with pytest.raises(BudgetSpent, match=r"the task T-1-1 is spent: 0\.30 of 0\.30 USD"):
        await budgets.reserve("r3", cost(0.000001), payer)


async def test_all_or_nothing(redis: Any, budgets: Budgets) -> None:
    """One account that refuses keeps every other one as it was."""
    await budgets.reserve("r1", cost(1.5), Payer(nova="echo"))
    before = await contents(redis)
    with pytest.raises(BudgetSpent, match="the budget of echo for this hour"):
        await budgets.reserve("r2", cost(0.6), Payer(nova="echo", provider="openai"))
    assert await contents(redis) == before


async def test_overshoot_is_what_calls_in_flight_understated(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """Ten calls of 1 USD are under way when the cap is reached; each costs 3."""
    for number in range(10):
        await budgets.reserve(f"r{number}", cost(1), Payer())
    for number in range(10):
        with pytest.raises(BudgetSpent):
            await budgets.reserve("next", cost(0.01), Payer())
        await budgets.settle(f"r{number}", 3 * USD)
    assert (await spent(redis, clock))[0] == (10 + 10 * 2) * USD


async def test_a_new_window_has_its_whole_budget(clock: ManualClock, budgets: Budgets) -> None:
    """At the full hour, not a moment before."""
    await budgets.reserve("r1", cost(10), Payer())
    clock.advance(HOUR_MS - 1)
    with pytest.raises(BudgetSpent):
        await budgets.reserve("r2", cost(1), Payer())
    clock.advance(1)
    await budgets.reserve("r3", cost(5), Payer())
    with pytest.raises(BudgetSpent, match="for this day"):
        await budgets.reserve("r4", cost(0.01), Payer())


async def test_free_calls_pass_when_everything_is_spent(budgets: Budgets) -> None:
    """What costs nothing exceeds nothing."""
    await budgets.reserve("r1", cost(10), Payer())
    await budgets.settle("r1", 50 * USD)
    await budgets.reserve("free", cost(0), TORCH)


async def test_every_step_may_be_repeated(redis: Any, budgets: Budgets) -> None:
    """A reply that was lost, and the call repeated, changes nothing."""
    for _ in range(2):
        await budgets.reserve("r1", cost(1), TORCH)
        await budgets.reserve("r2", cost(1), TORCH)
    before = await contents(redis)
    await budgets.reserve("r1", cost(0.5), TORCH)
    assert await contents(redis) == before
    assert [await budgets.settle("r1", 10) for _ in range(2)] == [True, False]
    assert [await budgets.release("r2") for _ in range(2)] == [True, False]
    settled = await contents(redis)
    assert not await budgets.settle("r1", 99)
    assert not await budgets.release("r1")
    assert await contents(redis) == settled


STEPS = {
    # (state, verb) -> (state after, micro-USD after), of a reservation of 100 and a word of 70
    ("open", "settle"): ("settled", 70),
    ("open", "release"): ("released", 0),
    ("open", "correct"): ("corrected", 30),
    ("settled", "settle"): ("settled", 80),
    ("settled", "release"): ("settled", 80),
    ("settled", "correct"): ("corrected", 30),
    ("released", "settle"): ("settled", 70),
    ("released", "release"): ("released", 0),
    ("released", "correct"): ("corrected", 30),
    ("corrected", "settle"): ("corrected", 70),
    ("corrected", "release"): ("corrected", 20),
    ("corrected", "correct"): ("corrected", 30),
}
"""The table of `budget_scopes.py`, cell by cell. Before: settled at 80, corrected to 20."""


@pytest.mark.parametrize(("state", "verb"), STEPS)
async def test_each_cell_of_the_reservations_table(
    redis: Any, clock: ManualClock, budgets: Budgets, state: str, verb: str
) -> None:
    """What each word does in each state; a second time it does nothing more."""
    await budgets.reserve("r1", Amount(100, 0), TORCH)
    clock.advance(60_000)
    if state == "settled":
        await budgets.settle("r1", 80)
    elif state == "released":
        await budgets.release("r1")
    elif state == "corrected":
        await budgets.correct("r1", 20, None, "the bill")

    async def say() -> None:
        if verb == "settle":
            await budgets.settle("r1", 70)
        elif verb == "release":
            await budgets.release("r1")
        else:
            await budgets.correct("r1", 30, None, "a better bill")

    await say()
    text = await redis.hget(keys.BUDGET_RESERVATIONS, "r1")
    after = parse_reservation("r1", text)
    assert (after.state, after.amount.micro_usd) == STEPS[state, verb]
    assert await spent(redis, clock) == [after.amount.micro_usd] * 3
    assert after.reserved.micro_usd == 100
    before = await contents(redis)
    await say()
    assert await contents(redis) == before


async def test_a_late_word_of_the_old_owner_only_raises_what_was_corrected(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """A worker that was frozen wakes up after somebody has closed its reservation at too little."""
    await budgets.reserve("low", cost(1), TORCH)
    await budgets.reserve("high", cost(1), TORCH)
    clock.advance(60_000)
    await budgets.correct("low", 0, 0, "never reached the provider")
    await budgets.correct("high", 900_000, 0, "the bill")
    assert await budgets.settle("low", 400_000)
    assert await budgets.settle("high", 400_000)
    assert (await spent(redis, clock))[2] == 1_300_000
    assert not await budgets.settle("low", 700_000)


async def test_a_settlement_without_figures_stays_at_what_was_reserved(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """What nobody knows counts as the worst case."""
    await budgets.reserve("r1", cost(1, 50), TORCH)
    assert await budgets.settle("r1")
    assert (await spent(redis, clock))[2] == USD
    assert (await budgets.unconfirmed()).number == 0


async def test_a_dead_callers_reservation_stands_until_evidence_corrects_it(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """For good, not for a lease: it is listed as unconfirmed, and settled by hand."""
    await budgets.reserve("r1", cost(1), TORCH)
    assert (await budgets.unconfirmed()).number == 0
    with pytest.raises(Refused, match="may still be under way"):
        await budgets.correct("r1", 0, 0, "too early")
    clock.advance(30 * 24 * HOUR_MS)
    await budgets.sweep()
    number, (one,) = await budgets.unconfirmed()
    assert (number, one.id, one.task) == (1, "r1", TORCH.task)
    assert (await spent(redis, clock, "nova", "torch"))[2] == USD
    await budgets.correct("r1", 250_000, 0, "invoice | of\nNovember")
    assert (await spent(redis, clock, "nova", "torch"))[2] == 250_000
    assert (await budgets.unconfirmed()).number == 0
    text = await redis.hget(keys.BUDGET_RESERVATIONS, "r1")
    assert parse_reservation("r1", text).evidence == "invoice of November"


async def test_what_makes_no_sense_is_refused(clock: ManualClock, budgets: Budgets) -> None:
    """Bad figures, ids and names; an id used for another call; evidence that says nothing."""
    for amount in (Amount(-1, 0), Amount(1, -1), Amount(10**13, 0), Amount(1.0, 0)):  # type: ignore[arg-type]
        with pytest.raises(UserError, match="whole number"):
            await budgets.reserve("r1", amount, TORCH)
    for payer in (Payer(nova="To|rch"), Payer(provider="a b"), Payer(task="a|b")):
        with pytest.raises(UserError, match="is no"):
            await budgets.reserve("r1", cost(1), payer)
    for name in ("", "a|b", "x" * 129):
        with pytest.raises(UserError, match="is no id"):
            await budgets.reserve(name, cost(1), TORCH)
    for call in (budgets.settle("none", 1), budgets.release("none"), budgets.settle("none")):
        with pytest.raises(NotFound, match="no reservation none"):
            await call
    await budgets.reserve("r1", cost(1), TORCH)
    with pytest.raises(Refused, match="cheaper call"):
        await budgets.reserve("r1", cost(2), TORCH)
    with pytest.raises(Refused, match="somebody else"):
        await budgets.reserve("r1", cost(1), Payer(nova="echo"))
    with pytest.raises(UserError, match="whole number"):
        await budgets.settle("r1", -1)
    await budgets.settle("r1", 1)
    with pytest.raises(Refused, match="settled already"):
        await budgets.reserve("r1", cost(1), TORCH)
    clock.advance(60_000)
    with pytest.raises(UserError, match="evidence"):
        await budgets.correct("r1", 1, 1, " \n")


async def test_exhausted_names_fleet_and_novas_of_which_nothing_is_left(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """With their ends; other Novas, providers and tasks hold nobody."""
    novas = ("torch", "echo")
    assert await budgets.exhausted(novas=novas) == []
    await budgets.reserve("r1", cost(2), Payer(nova="echo"))
    await budgets.reserve("r2", cost(1), Payer(provider="openai"))
    (echo,) = await budgets.exhausted(novas=novas)
    assert (echo.scope, echo.name, echo.window, echo.unit) == ("nova", "echo", "hour", "usd")
    assert (echo.cap, echo.spent, echo.until_ms) == (2 * USD, 2 * USD, NOON_MS + HOUR_MS)
    await budgets.settle("r1", 13_999_999)
    found = {(one.scope, one.name, one.window) for one in await budgets.exhausted(novas=novas)}
    assert found == {("nova", "echo", "hour"), ("nova", "echo", "day"), ("fleet", "", "hour")}
    clock.advance(HOUR_MS)
    found = {(one.scope, one.name, one.window) for one in await budgets.exhausted(novas=novas)}
    assert found == {("nova", "echo", "day")}
    assert await budgets.exhausted() == []


async def test_a_cap_of_nothing_refuses_calls_and_holds_nobody(
    redis: Redis, clock: ManualClock
) -> None:
    """It forbids paid calls; commands that cost nothing go on."""
    budgets = Budgets(redis, clock, BudgetSettings(usd_per_day=0))
    with pytest.raises(BudgetSpent, match=r"is spent: 0\.00 of 0\.00 USD"):
        await budgets.reserve("r1", cost(0.01), Payer())
    assert await budgets.exhausted() == []


async def test_caps_that_change_hold_from_the_next_call_on(
    redis: Redis, clock: ManualClock, budgets: Budgets
) -> None:
    """What was spent is the store's, what may be spent the settings'."""
    await budgets.reserve("r1", cost(9), Payer())
    lower = Budgets(redis, clock, BudgetSettings(usd_per_hour=5))
    with pytest.raises(BudgetSpent, match=r"9\.00 of 5\.00"):
        await lower.reserve("r2", cost(0.01), Payer())
    assert len(await lower.exhausted()) == 1
    await Budgets(redis, clock, BudgetSettings()).reserve("r2", cost(100), Payer())


async def test_a_reply_that_was_lost_is_found_again(
    redis: Any, clock: ManualClock, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    """The script ran, nobody heard of it, the caller asks again with its id."""
    proxy = LosingProxy(valkey_server, tmp_path)
    await proxy.start()
    client = connect(proxy.address, single=True)
    budgets = Budgets(client, clock, SETTINGS)
    try:
        await budgets.reserve("warm", cost(0), TORCH)
        await budgets.settle("warm", 0)
        for word, say in (
            ("lost-1", lambda: budgets.reserve("lost-1", cost(1), TORCH)),
            ("lost-1", lambda: budgets.settle("lost-1", 400_000)),
        ):
            proxy.lose(word)
            with pytest.raises(StoreUnreachable):
                await say()
            await proxy.lost.wait()
            after = await contents(redis)
            await say()
            assert await contents(redis) == after
        assert (await spent(redis, clock))[2] == 400_000
    finally:
        await client.aclose()
        await proxy.close()


async def test_many_callers_at_once_never_exceed_a_cap(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """A hundred ask for 0.25 USD of the 10 that are there."""

    async def ask(number: int) -> bool:
        try:
            await budgets.reserve(f"r{number}", cost(0.25), Payer())
        except BudgetSpent:
            return False
        return True

    assert sum(await asyncio.gather(*map(ask, range(100)))) == 40
    assert (await spent(redis, clock))[0] == 10 * USD


# -- sweeping --------------------------------------------------------------------------------------


async def test_the_sweep_forgets_what_is_past_and_nothing_else(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """Old windows, ended reservations, and tasks that have left; totals and open ones stay."""
    await redis.hset(keys.TASK_STATE, "STAYS-1-1", "…")
    await budgets.reserve("ended", cost(1), Payer(task="GONE-1-1"))
    await budgets.reserve("open", cost(2), Payer(nova="torch", task="STAYS-1-1"))
    await budgets.settle("ended", 1)
    clock.advance(KEPT_MS - 13 * HOUR_MS)
    assert await budgets.sweep() == 2  # the task that is gone
    clock.advance(14 * HOUR_MS + 24 * HOUR_MS)
    assert await budgets.sweep() == 1 + 2 * 4
    assert await redis.hkeys(keys.BUDGET_RESERVATIONS) == ["open"]
    assert await redis.hgetall(keys.BUDGET_TASKS) == {
        "STAYS-1-1|usd": "2000000",
        "STAYS-1-1|tokens": "0",
    }
    left = set(await redis.hkeys(keys.BUDGET_SPENT))
    assert left == {f"{a}|total|{u}" for a in ("fleet", "nova:torch") for u in ("usd", "tokens")}
    assert await budgets.sweep() == 0
    await budgets.settle("open", 3 * USD)
    assert set(await redis.hkeys(keys.BUDGET_SPENT)) == left
    assert await spent(redis, clock) == [0, 0, 3 * USD + 1]
    assert await spent(redis, clock, "nova", "torch") == [0, 0, 3 * USD]


async def test_nothing_is_reserved_in_a_window_that_was_swept(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """A clock that went back by days finds no empty window."""
    await budgets.reserve("r1", cost(1), Payer())
    clock.advance(2 * KEPT_MS)
    await budgets.reserve("r2", cost(1), Payer())
    await budgets.sweep()
    clock.advance(-2 * KEPT_MS)
    with pytest.raises(Refused, match="fleet time went back"):
        await budgets.reserve("r3", cost(1), Payer())
    clock.advance(KEPT_MS)
    await budgets.reserve("r3", cost(1), Payer())


# -- what the store holds is not ours --------------------------------------------------------------


@pytest.mark.parametrize("how", BROKEN)
async def test_broken_state_refuses_everything_and_names_the_repair(
    redis: Any, budgets: Budgets, how: str
) -> None:
    """Nothing is reserved, nothing is written, and the message says what to run."""
    await budgets.reserve("r1", cost(1), TORCH)
    await break_store(redis, how)
    dumped = {key: await redis.dump(key) for key in KEYS}
    for say in (budgets.reserve("r2", cost(1), TORCH), budgets.settle("r1", 5)):
        with pytest.raises(CorruptState, match="`novawf budget repair`") as refused:
            await say
        assert len(str(refused.value).splitlines()) == 1
    assert {key: await redis.dump(key) for key in KEYS} == dumped


async def test_a_broken_reservation_is_refused_by_whoever_meets_it(
    redis: Any, clock: ManualClock, budgets: Budgets
) -> None:
    """Its own caller, and the list of unconfirmed ones."""
    await budgets.reserve("r1", cost(1), TORCH)
    await redis.hset(keys.BUDGET_RESERVATIONS, "r1", "garbage")
    clock.advance(60_000)
    for say in (budgets.settle("r1", 1), budgets.reserve("r1", cost(1), TORCH)):
        with pytest.raises(CorruptState, match="`novawf budget repair`"):
            await say
    with pytest.raises(CorruptState, match="`novawf budget repair`"):
        await budgets.unconfirmed()


@pytest.mark.parametrize(
    "how", ["the spending is another type", "a future version", "garbage in a sum", "no total"]
)
async def test_broken_state_is_no_budget_with_something_left(
    redis: Any, clock: ManualClock, budgets: Budgets, how: str
) -> None:
    """Whoever holds claims by what is exhausted must see that it cannot be told."""
    await budgets.reserve("r1", cost(1), TORCH)
    await break_store(redis, how)
    with pytest.raises(CorruptState, match="`novawf budget repair`"):
        await budgets.exhausted(novas=("torch",))


async def test_no_store_no_paid_call(clock: ManualClock, tmp_path: Path) -> None:
    """It fails closed."""
    client = connect(StoreAddress.unix(tmp_path / "none.sock"), single=True)
    with pytest.raises(StoreUnreachable):
        await Budgets(client, clock, SETTINGS).reserve("r1", cost(1), TORCH)
    await client.aclose()
